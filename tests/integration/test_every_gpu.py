"""Models on GPUs that name none: on every GPU of a fake driver, which has two."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.fixture_models import FAKE_DEVICES, WITH_FAKE_GPUS
from tests.support.server_process import served

from penstock.engines import SeenDevices
from penstock_client import Client

pytestmark = pytest.mark.any_transport

GPU = "GPU {} (Fake GPU)"


@pytest.mark.parametrize(
    ("group", "driver", "gpus", "devices"),
    [
        ("kind: KIND_GPU count: 2", "", [0, 1], [0, 1]),
        ("kind: KIND_GPU count: 2 gpus: [1]", "", [1], [1]),
        ("kind: KIND_GPU count: 2", "none", [], [0]),
    ],
    ids=["open", "named", "no driver"],
)
def test_instances_are_on_each_gpu_unless_some_are_named(
    tmp_path: Path, group: str, driver: str, gpus: list[int], devices: list[int]
) -> None:
    directory = tmp_path / "plan" / "1"
    directory.mkdir(parents=True)
    (directory / "model.plan").write_text("fake-plan")
    (tmp_path / "plan" / "config.pbtxt").write_text(
        'backend: "device_fixture" default_model_filename: "model.plan" max_batch_size: 8 '
        'parameters { key: "kind" value { string_value: "plan" } } '
        f"instance_group {{ {group} }}"
    )
    flags = ("--backend-directory", str(FAKE_DEVICES))
    environment = {**WITH_FAKE_GPUS, "FAKE_DRIVER": driver}
    with (
        served(tmp_path, *flags, environment=environment) as server,
        Client(server.grpc) as client,
    ):
        (written,) = client.model_config("plan")["instance_group"]
        runs_on = client.model_metadata("plan").runs_on
        x, b = np.ones((2, 16), np.float32), np.ones((2, 1), np.float32)
        answers = [client.infer("plan", {"x": x, "b": b})["y"] for _ in range(4)]
    assert written.get("gpus", []) == gpus
    assert written["count"] == 2
    assert runs_on == "; ".join(GPU.format(number) for number in devices)
    assert all(answer.shape == (2, 16) for answer in answers)


@pytest.mark.parametrize(
    ("driver", "seen", "warned"),
    [("", 2, []), ("none", 0, []), ("error 100", 0, []), ("error 999", 0, ["999"])],
)
def test_driver_tells_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    driver: str,
    seen: int,
    warned: list[str],
) -> None:
    """By the program that a server asks it with."""
    for name, value in {**WITH_FAKE_GPUS, "FAKE_DRIVER": driver}.items():
        monkeypatch.setenv(name, value)
    assert SeenDevices().count() == seen
    assert [each.getMessage().rpartition(" ")[2] for each in caplog.records] == warned
