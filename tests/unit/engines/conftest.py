"""A TensorRT that builds what it is told, and a request for it."""

import sys
from pathlib import Path

import pytest
from tests.support.fake_tensorrt import FakeTensorRt

from penstock.engines import BuildRequest


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    fake = FakeTensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"onnx, with weights.bin")
    output = tmp_path / "out" / "model.plan"
    return BuildRequest(model, output, "model 'm' version 1", buckets=(1, 8))
