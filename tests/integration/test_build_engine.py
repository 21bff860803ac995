"""`penstock build-engine` with the real thing: TensorRT-RTX, whose package builds without a GPU.

It is large and not ours to pass on, so it is no package that development needs: `pip install
tensorrt-rtx` has these run.
"""

from pathlib import Path

import pytest
from tests.support.cli import penstock
from tests.support.models import onnx_files

from penstock.engines import verify_engine

pytest.importorskip("tensorrt_rtx", reason="the package tensorrt-rtx is not installed")
pytestmark = [pytest.mark.any_transport, pytest.mark.slow]


async def test_plan_is_built_of_a_repositorys_model_and_found_again(tmp_path: Path) -> None:
    config = "max_batch_size: 8"
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple(), config=config)
    command = ("build-engine", str(tmp_path / "simple"), "--library", "tensorrt_rtx")
    first = await penstock(*command)
    assert first.code == 0, first.err
    assert "Building engine" in first.err
    sidecar = verify_engine(tmp_path / "simple" / "1" / "model.plan")
    assert [sorted(each) for each in sidecar["recipe"]["profiles"]] == [["INPUT0", "INPUT1"]] * 3
    again = await penstock(*command)
    assert "is current" in again.out
    assert sidecar["key"] in again.out


async def test_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"this is not a model")
    output = str(tmp_path / "model.plan")
    ended = await penstock(
        "build-engine", str(model), "--output", output, "--library", "tensorrt_rtx"
    )
    assert ended.code == 1
    assert "model 'broken'" in ended.err
    assert not (tmp_path / "model.plan").exists()
