"""The device that an engine is built for: what a driver lacks ends in words."""

import ctypes

import pytest

from penstock.engines import EngineError
from penstock.engines.target import find_target


def test_driver_that_lacks_a_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    no_driver = ctypes.CDLL(None)
    monkeypatch.setattr("penstock.engines.target.ctypes.CDLL", lambda _: no_driver)
    with pytest.raises(EngineError, match=r"^the NVIDIA driver lacks cuInit: it cannot be asked$"):
        find_target()
