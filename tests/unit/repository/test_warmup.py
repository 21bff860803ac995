"""Warm-up requests, read back as a client's would be."""

import math
import struct
from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text, tensor
from tritonclient.grpc import service_pb2

from penstock.errors import ConfigError, InternalError, InvalidArgumentError
from penstock.repository.loader import ModelLoader
from penstock.repository.settings import RepositorySettings
from penstock.repository.validation import DATATYPES


def warm_ups(
    tmp_path: Path, datatype: str, warmup: str, dims: tuple[int, ...] = (-1, 2)
) -> list[service_pb2.ModelInferRequest]:
    """The requests that version 1 of a model with one input `x` runs."""
    if not (tmp_path / "m").exists():
        signature = signature_text([tensor("x", datatype, dims)])
        add_model(tmp_path, "m", signature=signature)
    (tmp_path / "m" / "config.pbtxt").write_text(warmup)
    engine = FakeEngine()
    loader = ModelLoader(engine, RepositorySettings((tmp_path,)))
    loader.prepare(loader.plan("m"), 1)
    (version,) = engine.created
    return [service_pb2.ModelInferRequest.FromString(data) for data in version.warm_ups]


def one_input(datatype: str, source: str, more: str = "", dims: str = "[2]") -> str:
    name = "STRING" if datatype == "BYTES" else datatype
    return f"""model_warmup {{ name: "w" {more} inputs {{ key: "x"
        value {{ data_type: TYPE_{name} dims: {dims} {source} }} }} }}"""


SIZES = {"BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "INT16": 2, "UINT64": 8, "INT8": 1}


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("source", ["zero_data: true", "random_data: true"])
def test_every_datatype(tmp_path: Path, datatype: str, source: str) -> None:
    (request,) = warm_ups(tmp_path, datatype, one_input(datatype, source, "batch_size: 3"))
    assert (request.model_name, request.model_version) == ("m", "1")
    (given,) = request.inputs
    assert (given.name, given.datatype, list(given.shape)) == ("x", datatype, [3, 2])
    (raw,) = request.raw_input_contents
    if datatype in SIZES:
        assert len(raw) == 6 * SIZES[datatype]
    if source == "zero_data: true":
        assert set(raw) == {0}
    else:
        assert len(set(raw)) > 1


def test_random_floats_are_in_the_unit_interval(tmp_path: Path) -> None:
    (request,) = warm_ups(tmp_path, "FP32", one_input("FP32", "random_data: true"))
    values = struct.unpack("<2f", request.raw_input_contents[0])
    assert all(0 <= value < 1 for value in values)
    (request,) = warm_ups(tmp_path / "h", "BF16", one_input("BF16", "random_data: true"))
    upper = request.raw_input_contents[0]
    values = struct.unpack("<2f", b"".join(b"\0\0" + upper[i : i + 2] for i in (0, 2)))
    assert all(0 < value < 1 and math.isfinite(value) for value in values)


def test_random_strings_have_true_lengths(tmp_path: Path) -> None:
    (request,) = warm_ups(tmp_path, "BYTES", one_input("BYTES", "random_data: true"))
    raw = request.raw_input_contents[0]
    (length,) = struct.unpack_from("<I", raw)
    assert len(raw) == 2 * (4 + length)


def test_model_without_a_batch_dimension(tmp_path: Path) -> None:
    warmup = one_input("FP32", "zero_data: true")
    (request,) = warm_ups(tmp_path, "FP32", warmup, dims=(2,))
    assert list(request.inputs[0].shape) == [2]


def test_count_repeats_the_request(tmp_path: Path) -> None:
    assert len(warm_ups(tmp_path, "FP32", one_input("FP32", "zero_data: true", "count: 3"))) == 3


def test_file_holds_one_row(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", signature=signature_text([tensor("x", "INT16", (-1, 2))]))
    (path / "warmup").mkdir()
    (path / "warmup" / "x.bin").write_bytes(b"\1\0\2\0")
    warmup = one_input("INT16", 'input_data_file: "x.bin"', "batch_size: 2")
    (request,) = warm_ups(tmp_path, "INT16", warmup)
    assert request.raw_input_contents[0] == b"\1\0\2\0" * 2


@pytest.mark.parametrize(
    ("contents", "fault"),
    [(None, "cannot read 'x.bin': No such file"), (b"\1\0\2", "has 3 bytes, expected 4 for one")],
)
def test_file_that_cannot_be_used(tmp_path: Path, contents: bytes | None, fault: str) -> None:
    path = add_model(tmp_path, "m", signature=signature_text([tensor("x", "INT16", (-1, 2))]))
    (path / "warmup").mkdir()
    if contents is not None:
        (path / "warmup" / "x.bin").write_bytes(contents)
    with pytest.raises(ConfigError, match=f"^model_warmup 'w' input 'x': .*{fault}"):
        warm_ups(tmp_path, "INT16", one_input("INT16", 'input_data_file: "x.bin"'))


def test_failing_warm_up_fails_the_load(tmp_path: Path) -> None:
    add_model(tmp_path, "m", config=one_input("FP32", "zero_data: true", dims="[4]"))
    engine = FakeEngine()
    engine.fail["warm_up", "m"] = InvalidArgumentError("the model threw")
    loader = ModelLoader(engine, RepositorySettings((tmp_path,)))
    with pytest.raises(InvalidArgumentError, match="version 1: warm-up 'w' failed: the model thr"):
        loader.prepare(loader.plan("m"), 1)
    assert not isinstance(engine.fail["warm_up", "m"], InternalError)
