"""ONNX models of every kind through the server: right answers, and clear refusals at load."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.support.models import classical, onnx_files
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient, RpcError

pytestmark = pytest.mark.any_transport

OPTIONAL_SCALE_CONFIG = """
backend: "onnxruntime"
max_batch_size: 0
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1, -1 ] }
input { name: "SCALE" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1, -1 ] }
"""


@asynccontextmanager
async def serving(repository: Path, **settings: object) -> AsyncIterator[AsyncClient]:
    config = server_config(repository, **settings)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        yield client


async def test_every_fixture_model_becomes_ready(tmp_path: Path) -> None:
    names = onnx_files.write_all(tmp_path)
    async with serving(tmp_path) as client:
        for entry in await client.repository_index():
            assert (entry.name, entry.state, entry.reason) == (entry.name, "READY", "")
        assert sorted({entry.name for entry in await client.repository_index()}) == names


@pytest.mark.parametrize("datatype", ["INT32", "INT8"])
async def test_simple_adds_and_subtracts(tmp_path: Path, datatype: str) -> None:
    onnx_files.write_model(tmp_path, "simple", onnx_files.simple(datatype))
    a = np.arange(32, dtype=datatype.lower()).reshape(2, 16)
    b = np.ones_like(a)
    async with serving(tmp_path) as client:
        result = await client.infer("simple", {"INPUT0": a, "INPUT1": b})
    np.testing.assert_array_equal(result["OUTPUT0"], a + b)
    np.testing.assert_array_equal(result["OUTPUT1"], a - b)


async def test_simple_string_adds_numbers_in_text(tmp_path: Path) -> None:
    onnx_files.write_model(tmp_path, "simple_string", onnx_files.simple("BYTES"))
    a = np.array([[str(i) for i in range(16)]], dtype=object)
    b = np.array([["-1"] * 16], dtype=object)
    async with serving(tmp_path) as client:
        result = await client.infer("simple_string", {"INPUT0": a, "INPUT1": b})
    assert [int(text) for text in result["OUTPUT0"][0]] == [i - 1 for i in range(16)]
    assert [int(text) for text in result["OUTPUT1"][0]] == [i + 1 for i in range(16)]


async def test_variable_dimensions_give_an_output_of_another_rank(tmp_path: Path) -> None:
    onnx_files.write_model(tmp_path, "row_sums", onnx_files.row_sums())
    async with serving(tmp_path) as client:
        for shape in [(1, 2, 3), (4, 1, 7)]:
            image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            result = await client.infer("row_sums", {"INPUT0": image})
            np.testing.assert_allclose(result["OUTPUT0"], image.sum(axis=2))


async def test_optional_input_may_be_left_out(tmp_path: Path) -> None:
    onnx_files.write_model(
        tmp_path, "optional_scale", onnx_files.optional_scale(), config=OPTIONAL_SCALE_CONFIG
    )
    x = np.array([[1, 2]], np.float32)
    async with serving(tmp_path) as client:
        without = await client.infer("optional_scale", {"INPUT0": x})
        scale = np.array([10], np.float32)
        given = await client.infer("optional_scale", {"INPUT0": x, "SCALE": scale})
    np.testing.assert_array_equal(without["OUTPUT0"], x * 2)
    np.testing.assert_array_equal(given["OUTPUT0"], x * 10)


async def test_external_data_and_unknown_output_sizes_are_served(tmp_path: Path) -> None:
    onnx_files.write_all(tmp_path)
    async with serving(tmp_path) as client:
        biased = await client.infer("external_bias", {"INPUT0": np.zeros((2, 4), np.float32)})
        found = await client.infer("nonzero", {"INPUT0": np.array([0, 5, 0, 7], np.float32)})
    np.testing.assert_array_equal(biased["OUTPUT0"], [[1, 2, 3, 4]] * 2)
    np.testing.assert_array_equal(found["OUTPUT0"], [[1, 3]])


async def test_digits_are_recognised_with_numbers_or_text_as_labels(tmp_path: Path) -> None:
    numbers, images = classical.digits()
    texts, _ = classical.digits(text_labels=True)
    onnx_files.write_model(tmp_path, "digits", numbers)
    onnx_files.write_model(tmp_path, "digits_text", texts)
    async with serving(tmp_path) as client:
        result = await client.infer("digits", {"X": images[:32]})
        named = await client.infer("digits_text", {"X": images[:32]})
    assert result["probabilities"].shape == (32, 10)
    np.testing.assert_allclose(result["probabilities"].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(result["probabilities"].argmax(axis=1), result["label"])
    assert [f"d{label}".encode() for label in result["label"]] == list(named["label"])


def zipmap() -> onnx.ModelProto:
    return classical.digits(zipmap=True)[0]


REFUSED = {
    "zipmap": (zipmap, "zipmap=False"),
    "sequence": (onnx_files.sequence_output, "output 'OUTPUT0' is a sequence"),
    "custom_operator": (onnx_files.custom_operator, "custom operators are not supported"),
    "absolute": (lambda: onnx_files.external_bias("/etc/hostname"), "is an absolute path"),
    "climbing": (lambda: onnx_files.external_bias("../../bias.bin"), "leads out of the model's"),
    "missing": (lambda: onnx_files.external_bias("bias.bin"), "'bias.bin' cannot be opened"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_model_that_cannot_be_served_is_refused_with_its_reason(
    tmp_path: Path, case: str
) -> None:
    build, reason = REFUSED[case]
    repository = tmp_path / "repository"
    onnx_files.write_model(repository, case, build())
    (tmp_path / "bias.bin").write_bytes(onnx_files.external_bias_data())
    async with serving(repository, model_control_mode="explicit") as client:
        with pytest.raises(RpcError, match=f"model '{case}' version 1") as refused:
            await client.load_model(case)
        (entry,) = await client.repository_index()
    assert reason in str(refused.value)
    assert reason in entry.reason
    assert str(tmp_path) not in str(refused.value) + entry.reason
