"""The settings of how well models use their devices."""

import pytest

from penstock.config import ServerConfig
from penstock.errors import ConfigError


def config(*peaks: str) -> ServerConfig:
    return ServerConfig.from_text({"model_repository": "m", "peak_operations": peaks})


def test_peaks_are_by_device() -> None:
    assert config().peaks() == {}
    found = config("CPU=9e10", "NVIDIA H200 = x=6e14", "GPU-5a1c=120000000000").peaks()
    assert found == {"CPU": 9e10, "NVIDIA H200 = x": 6e14, "GPU-5a1c": 1.2e11}


def test_several_come_in_one_variable() -> None:
    texts = {"model_repository": "m", "peak_operations": "CPU=1;GPU=2"}
    assert ServerConfig.from_text(texts).peaks() == {"CPU": 1.0, "GPU": 2.0}


@pytest.mark.parametrize("text", ["CPU", "=9e10", "CPU=", "CPU=fast", "CPU=0", "CPU=-1", "CPU=inf"])
def test_what_is_no_peak_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(text)
    assert raised.value.faults == (f"--peak-operations: expected DEVICE=RATE, got {text!r}",)


def test_device_with_two_peaks_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        config("CPU=1", "CPU=2")
    assert raised.value.faults == ("--peak-operations: 'CPU' has two rates",)
