"""`penstock build-engine`: what is built of what, and how it refuses."""

import json
import os
import sys
from pathlib import Path

import pytest
from tests.support.fake_tensorrt import FakeTensorRt
from tests.support.models import onnx_files
from typer.testing import CliRunner, Result

from penstock.commands._cli import app
from penstock.engines import VISIBLE_DEVICES, verify_engine


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    fake = FakeTensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


def run(*arguments: object) -> Result:
    words = ["build-engine", *map(str, arguments), "--library", "tensorrt_rtx"]
    return CliRunner().invoke(app, words)


def write_model(path: Path, config: str) -> Path:
    for version in ("1", "2"):
        (path / version).mkdir(parents=True)
        (path / version / "model.onnx").write_bytes(b"onnx")
    (path / "config.pbtxt").write_text(config)
    return path


def test_model_of_a_repository_is_built_as_it_batches(trt: FakeTensorRt, tmp_path: Path) -> None:
    model = write_model(
        tmp_path / "m", "max_batch_size: 32 dynamic_batching { preferred_batch_size: [ 8 ] }"
    )
    result = run(model)
    assert result.exit_code == 0, result.output
    plan = model / "2" / "model.plan"
    assert f"{plan} was built: 4 bytes, key " in result.output
    assert "Building engine, 2 steps" in result.output
    assert json.loads(json.dumps([each["x"][1] for each in trt.profiles])) == [
        [1, 4],
        [8, 4],
        [32, 4],
    ]
    assert verify_engine(plan)["recipe"]["library"] == ["tensorrt_rtx", "11.1.0.106"]
    again = run(model)
    assert "is current: 4 bytes" in again.output
    assert trt.builds == 1


UNSERVED = (
    "Warning: config.pbtxt of model 'm' does not say platform: \"tensorrt_plan\": it would be "
    "served by onnxruntime, without the engine"
)


@pytest.mark.parametrize(
    ("config", "is_served"),
    [
        ("", False),
        ("max_batch_size: 8", False),
        ('backend: "onnxruntime"', False),
        ('platform: "tensorrt_plan"', True),
        ('backend: "tensorrt"', True),
        ('default_model_filename: "model.plan"', True),
        ('platform: "no_such"', True),
    ],
)
def test_engine_that_would_not_be_served_is_told(
    trt: FakeTensorRt, tmp_path: Path, config: str, is_served: bool
) -> None:
    model = write_model(tmp_path / "m", config)
    result = run(model)
    assert result.exit_code == 0, result.output
    assert (UNSERVED in result.stderr.splitlines()) is not is_served
    assert "Warning" not in run(model, "--output", tmp_path / "elsewhere.plan").output


PREFERRED_64 = "dynamic_batching { preferred_batch_size: [ 8, 64 ] }"


@pytest.mark.parametrize(
    ("config", "flags", "most"),
    [
        ("max_batch_size: 64", ("--buckets", "1,8"), 8),
        ("max_batch_size: 64", ("--max-batch-size", 16), 16),
        ("max_batch_size: 64", ("--max-batch-size", 128), None),
        ("max_batch_size: 64", ("--buckets", "1,64"), None),
        ("max_batch_size: 64", (), None),
        ("max_batch_size: 64", ("--max-batch-size", 0, "--shape", "x=1x4:8x4:16x4"), 16),
        ("max_batch_size: 64", ("--max-batch-size", 0, "--shape", "x=1x4:8x4:64x4"), None),
        ("max_batch_size: 0", ("--shape", "x=1x4:8x4:16x4"), None),
        ("max_batch_size: 8", ("--buckets", "8"), None),
        (PREFERRED_64, ("--buckets", "1,8"), 8),
        (PREFERRED_64, ("--max-batch-size", 16), 16),
        (PREFERRED_64, (), None),
        ("", ("--buckets", "1,8"), None),
        ("", (), None),
    ],
)
def test_engine_that_would_be_refused_for_its_rows_is_told(
    trt: FakeTensorRt, tmp_path: Path, config: str, flags: tuple[object, ...], most: int | None
) -> None:
    model = write_model(tmp_path / "m", f'platform: "tensorrt_plan" {config}')
    field = "preferred_batch_size" if config == PREFERRED_64 else "max_batch_size"
    said = (
        f"Warning: config.pbtxt of model 'm' says {field}: 64, and the plan is built for "
        f"{most} rows at most: it would be refused; write at most {most}, or build it for 64"
    )
    for _ in range(2):  # it was built; it is current
        result = run(model, *flags)
        assert result.exit_code == 0, result.output
        warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning")]
        assert warnings == ([] if most is None else [said])
    assert "Warning" not in run(model, *flags, "--output", tmp_path / "elsewhere.plan").output


@pytest.mark.parametrize(
    ("flags", "greatest"),
    [((), [1, 4, 16, 64]), (("--max-batch-size", 4), [1, 4]), (("--buckets", "2,8"), [2, 8])],
)
def test_model_that_does_not_say_how_it_batches_is_built_as_it_will_be_served(
    trt: FakeTensorRt, tmp_path: Path, flags: tuple[object, ...], greatest: list[int]
) -> None:
    model = write_model(tmp_path / "m", "")
    (model / "config.pbtxt").unlink()
    result = run(model, *flags)
    assert result.exit_code == 0, result.output
    assert [each["x"][2] for each in trt.profiles] == [(rows, 4) for rows in greatest]
    assert "is current" in run(model, *flags).output
    assert trt.builds == 1


def test_flags_go_before_the_configuration(trt: FakeTensorRt, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", "max_batch_size: 32")
    output = tmp_path / "else" / "there.plan"
    trt.inputs = [("ids", (-1, -1))]
    options = ("--max-batch-size", 16, "--buckets", "4,16", "--shape", "ids=1:64:128")
    result = run(model, "--output", output, *options)
    assert result.exit_code == 0
    uncounted = "model 'm' version 2: what a row costs could not be counted, and is not kept"
    assert uncounted in result.output.splitlines()
    assert trt.profiles[-1] == {"ids": ((5, 1), (16, 64), (16, 128))}
    assert "operations_per_inference" not in verify_engine(output), "a length is open"


def test_what_a_row_costs_is_kept_with_the_plan(trt: FakeTensorRt, tmp_path: Path) -> None:
    trt.inputs = [("INPUT0", (-1, 16)), ("INPUT1", (-1, 16))]
    model = write_model(tmp_path / "m", "max_batch_size: 8")
    (model / "2" / "model.onnx").write_bytes(onnx_files.simple().SerializeToString())
    assert run(model).exit_code == 0
    plan = model / "2" / "model.plan"
    assert verify_engine(plan)["operations_per_inference"] == 0, "sums and differences only"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["m", "--buckets", "0,8"], "--buckets: expected numbers from 1 up to 32, as 1,8,32"),
        (["m", "--buckets", "64"], "expected numbers from 1 up to 32"),
        (["m", "--shape", "y=1"], "model 'm' version 2: shape of input 'y': the model has no such"),
        (["m", "--shape", "x=4:2:8"], "shape of input 'x': expected least <= likely <= greatest"),
        (["m", "--device", "first"], "'first' is no device, expected a number or a UUID"),
        (["m", "--device", "2"], "there is no GPU 2: 2 are seen (CUDA_VISIBLE_DEVICES)"),
        (["m", "--version-compatible"], "no engine of tensorrt_rtx is version-compatible"),
        (["nowhere"], "expected an ONNX file or a model's directory"),
        (["m/2/model.onnx"], "--output: expected where the plan of"),
        (["empty"], "model 'empty' has no version"),
        (["no_file"], "model 'no_file' version 1 has no model.onnx"),
    ],
)
def test_what_cannot_be_built_is_refused(
    trt: FakeTensorRt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    fault: str,
) -> None:
    write_model(tmp_path / "m", "max_batch_size: 32")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_file" / "1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VISIBLE_DEVICES, "4,5")
    result = run(*arguments)
    assert result.exit_code == 1
    assert fault in result.output
    assert trt.builds == 0


def test_device_is_the_only_one_that_is_seen(
    trt: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "4,GPU-b")
    model = write_model(tmp_path / "m", "max_batch_size: 8")
    assert run(model).exit_code == 0
    assert os.environ[VISIBLE_DEVICES] == "4,GPU-b", "the first of them"
    assert run(model, "--device", "1").exit_code == 0
    assert os.environ[VISIBLE_DEVICES] == "GPU-b"


def test_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    result = run(write_model(tmp_path / "m", ""))
    assert result.exit_code == 1
    assert result.output.startswith("Error: the Python package 'tensorrt-rtx' is not installed")
