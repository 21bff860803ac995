"""OpenVINO models of every format through the server: right answers, and clear refusals at load."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.support.models import onnx_files, openvino_files, weight_files
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient, InvalidArgumentError

pytestmark = pytest.mark.any_transport

FORMATS = ["model.xml", "model.pb", "model.saved_model", "model.tflite", "model.pdmodel"]


def config_of(filename: str, *more: str) -> str:
    return "\n".join(['backend: "openvino"', f'default_model_filename: "{filename}"', *more])


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'


@asynccontextmanager
async def serving(repository: Path, **settings: object) -> AsyncIterator[AsyncClient]:
    config = server_config(repository, **settings)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        yield client


async def refusal(repository: Path) -> str:
    """Why the one model of the repository is not served; no path of the machine is in it."""
    async with serving(repository, exit_on_error=False, strict_readiness=False) as client:
        (entry,) = await client.repository_index()
    assert entry.state == "UNAVAILABLE"
    assert str(repository) not in entry.reason
    return entry.reason


@pytest.mark.parametrize("filename", FORMATS)
async def test_model_of_every_format_answers(tmp_path: Path, filename: str) -> None:
    openvino_files.write_model(tmp_path, "scaled", filename, config=config_of(filename))
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    async with serving(tmp_path) as client:
        metadata = await client.model_metadata("scaled")
        (source,), (target,) = metadata.inputs, metadata.outputs
        assert (source.name.split(":")[0], target.name.split(":")[0]) == ("INPUT", "OUTPUT")
        assert (source.datatype, tuple(source.shape)) == ("FP32", (-1, 3))
        result = await client.infer("scaled", {source.name: rows})
    np.testing.assert_array_equal(result[target.name], rows * 2)


async def test_file_alone_tells_the_backend(tmp_path: Path) -> None:
    openvino_files.simple(tmp_path / "simple" / "1")
    a = np.arange(32, dtype=np.int32).reshape(2, 16)
    async with serving(tmp_path) as client:
        result = await client.infer("simple", {"INPUT0": a, "INPUT1": np.ones_like(a)})
        assert (await client.model_metadata("simple")).platform == "openvino"
    np.testing.assert_array_equal(result["OUTPUT0"], a + 1)
    np.testing.assert_array_equal(result["OUTPUT1"], a - 1)


async def test_onnx_file_is_served_where_the_configuration_says_so(tmp_path: Path) -> None:
    config = config_of("model.onnx")
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple(), config=config)
    a = np.arange(16, dtype=np.int32).reshape(1, 16)
    async with serving(tmp_path) as client:
        assert (await client.model_metadata("simple")).platform == "openvino"
        result = await client.infer("simple", {"INPUT0": a, "INPUT1": a})
    np.testing.assert_array_equal(result["OUTPUT0"], a * 2)


async def test_fixed_batch_of_one_is_refused_where_the_configuration_batches(
    tmp_path: Path,
) -> None:
    graph = openvino_files.Ir()
    graph.parameter("INPUT", "f32", "1,3")
    graph.layer("Relu", ["INPUT"], "OUTPUT")
    graph.write(tmp_path / "fixed" / "1", ["OUTPUT"])
    (tmp_path / "fixed" / "config.pbtxt").write_text(config_of("model.xml", "max_batch_size: 8"))
    reason = "input 'INPUT' has shape [1, 3] in the model file, expected -1 first"
    assert reason in await refusal(tmp_path)


@pytest.mark.parametrize("filename", FORMATS)
async def test_operator_without_conversion_is_named(tmp_path: Path, filename: str) -> None:
    openvino_files.write_model(
        tmp_path, "scaled", filename, config=config_of(filename), operator="Frobnicate"
    )
    reason = await refusal(tmp_path)
    assert "model 'scaled' version 1 cannot be read as" in reason
    assert "Frobnicate" in reason
    assert "src/" not in reason


async def test_operator_without_an_implementation_is_named(tmp_path: Path) -> None:
    config = config_of("model.onnx")
    onnx_files.write_model(tmp_path, "texts", onnx_files.simple("BYTES"), config=config)
    assert "Unsupported operation of type: Convert" in await refusal(tmp_path)


@pytest.mark.parametrize("filename", FORMATS)
async def test_file_of_another_format_is_refused(tmp_path: Path, filename: str) -> None:
    folder = openvino_files.write_model(tmp_path, "m", filename, config=config_of(filename))
    file = folder / "1" / filename
    (file / "saved_model.pb" if file.is_dir() else file).write_bytes(b"this is not a model")
    assert "model 'm' version 1 cannot be read as" in await refusal(tmp_path)


async def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = openvino_files.write_model(tmp_path, "m")
    (folder / "1" / "model.bin").unlink()
    assert "bin file cannot be found" in await refusal(tmp_path)


async def test_short_weights_are_refused(tmp_path: Path) -> None:
    folder = openvino_files.write_model(tmp_path, "m")
    (folder / "1" / "model.bin").write_bytes(b"short")
    assert "Incorrect weights in bin file" in await refusal(tmp_path)


WEIGHTED = {"model.saved_model": weight_files.saved_model, "model.pdmodel": weight_files.paddle}


def write_weighted(repository: Path, filename: str) -> list[Path]:
    """The files of its weights."""
    (repository / "m").mkdir()
    (repository / "m" / "config.pbtxt").write_text(config_of(filename))
    return WEIGHTED[filename](repository / "m" / "1" / filename)


@pytest.mark.parametrize("filename", WEIGHTED)
async def test_weights_cut_short_or_gone_while_served_change_nothing(
    tmp_path: Path, filename: str
) -> None:
    files = write_weighted(tmp_path, filename)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    async with serving(tmp_path) as client:
        for file in files:
            file.write_bytes(b"")
        result = await client.infer("m", {(await client.model_metadata("m")).inputs[0].name: rows})
        np.testing.assert_array_equal(next(iter(result.values())), rows * 2)
        for file in files:
            file.unlink()
        result = await client.infer("m", {(await client.model_metadata("m")).inputs[0].name: rows})
        np.testing.assert_array_equal(next(iter(result.values())), rows * 2)


@pytest.mark.parametrize("filename", WEIGHTED)
@pytest.mark.parametrize("kept", [None, 0, 1, 11, 30])
async def test_weights_that_are_short_or_missing_are_refused(
    tmp_path: Path, filename: str, kept: int | None
) -> None:
    for number, file in enumerate(write_weighted(tmp_path, filename)):
        whole = file.read_bytes()
        if kept is None:
            file.unlink()
        else:
            file.write_bytes(whole[: min(kept, len(whole) - 1)])
        told = await refusal(tmp_path)
        assert "model 'm' version 1" in told, number
        assert "cannot be read as" in told or "'variables.index'" in told, number
        file.write_bytes(whole)


async def test_damaged_index_of_variables_is_refused_whichever_byte_it_is(tmp_path: Path) -> None:
    index = write_weighted(tmp_path, "model.saved_model")[0]
    whole = index.read_bytes()
    rows = np.ones((1, 3), np.float32)
    refused = 0
    async with serving(tmp_path, model_control_mode="explicit") as client:
        for place in range(len(whole)):
            index.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
            try:
                await client.load_model("m")
            except InvalidArgumentError as error:
                assert "model 'm' version 1: file 'variables.index'" in str(error)
                refused += 1
            else:  # a byte that means nothing
                source = (await client.model_metadata("m")).inputs[0].name
                result = await client.infer("m", {source: rows})
                np.testing.assert_array_equal(next(iter(result.values())), rows * 2)
    padding = 40 - len(whole[-48:-8].rstrip(b"\0"))
    assert refused == len(whole) - padding


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CPU_EXTENSION_PATH", "/tmp/own.so", "a model's configuration loads no libraries"),
        ("TARGET_DEVICE", "GPU", "device 'GPU' is not supported"),
        ("NUM_STREAMS", "many", "expected AUTO, NUMA or a number from 1 to 1024, got 'many'"),
        ("CACHE_DIR", "/tmp", "parameter 'CACHE_DIR' is not supported by the openvino backend"),
    ],
)
async def test_parameter_that_is_not_served_is_refused_by_name(
    tmp_path: Path, name: str, value: str, reason: str
) -> None:
    config = config_of("model.xml", parameter(name, value))
    openvino_files.write_model(tmp_path, "m", config=config)
    told = await refusal(tmp_path)
    assert name in told
    assert reason in told


async def test_absent_engine_is_named_with_the_package_that_brings_it(tmp_path: Path) -> None:
    openvino_files.write_model(tmp_path, "m")
    settings = {"exit_on_error": False, "strict_readiness": False}
    nowhere = f"openvino,library={tmp_path / 'nowhere'}"
    async with serving(tmp_path, backend_config=(nowhere,), **settings) as client:
        (entry,) = await client.repository_index()
    assert "install the package openvino==" in entry.reason
    assert str(tmp_path) not in entry.reason
