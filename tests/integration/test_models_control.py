"""Load, unload, index and statistics on the wire, with a public client and bad models."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.fixture_models import write_blocked, write_model, write_simple
from tests.support.run_server import run_server, server_config
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton
from tritonclient.grpc import service_pb2 as wire
from tritonclient.utils import InferenceServerException

from penstock.errors import StartupError


@asynccontextmanager
async def explicit(
    repository: Path, *models: str, **settings: Any
) -> AsyncIterator[triton.InferenceServerClient]:
    """A client of a server in mode explicit with these models loaded."""
    mode = {"model_control_mode": "explicit", "load_model": models}
    async with run_server(server_config(repository, **mode, **settings)) as server:
        async with triton.InferenceServerClient(server.grpc_address) as client:
            yield client


async def infer(client: triton.InferenceServerClient, **options: Any) -> Any:
    inputs = [InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for each in inputs:
        each.set_data_from_numpy(np.full((1, 16), 21, np.int32))
    result = await client.infer("simple", inputs, **options)
    return result.as_numpy("OUTPUT0").tolist()


async def states(client: triton.InferenceServerClient) -> dict[tuple[str, str], str]:
    index = await client.get_model_repository_index()
    return {(model.name, model.version): model.state for model in index.models}


async def test_model_is_loaded_served_and_unloaded(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with explicit(tmp_path) as client:
        assert await states(client) == {("simple", ""): ""}
        assert not await client.is_model_ready("simple")
        await client.load_model("simple")
        assert await client.is_model_ready("simple")
        assert await infer(client) == [[42] * 16]
        assert await states(client) == {("simple", "1"): "READY"}
        await client.unload_model("simple")
        assert not await client.is_model_ready("simple")
        with pytest.raises(InferenceServerException, match="unknown model: 'simple'") as caught:
            await infer(client)
        assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_mode_none_takes_no_loads(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        async with triton.InferenceServerClient(server.grpc_address) as client:
            refusal = "explicit model load / unload is not allowed if polling is enabled"
            for change in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match=refusal) as caught:
                    await change("simple")
                assert caught.value.status() == "StatusCode.UNAVAILABLE"


WARM_UP = """model_warmup [{ name: "w" batch_size: 1 inputs {
  key: "INPUT0" value { data_type: TYPE_FP32 dims: [1] zero_data: true } } }]"""


def load_of(model: str) -> bytes:
    data: bytes = wire.RepositoryModelLoadRequest(model_name=model).SerializeToString()
    return data


async def test_load_goes_on_when_its_caller_leaves(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate, config=WARM_UP)
    config = server_config(tmp_path / "models", model_control_mode="explicit")
    async with run_server(config) as server, server.client() as client:
        load = client.unary("RepositoryModelLoad", load_of("blocked"))
        while b"LOADING" not in await client.unary("RepositoryIndex"):
            assert not load.done()
        load.cancel()
        gate.touch()
        while b"READY" not in (index := await client.unary("RepositoryIndex")):
            assert b"LOADING" in index


async def test_watcher_hears_of_a_load_from_its_beginning(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate, config=WARM_UP)
    config = server_config(tmp_path / "models", model_control_mode="explicit")
    async with run_server(config) as server, server.client() as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        load = client.unary("RepositoryModelLoad", load_of("blocked"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        gate.touch()
        await load
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_model_that_does_not_exist_cannot_be_loaded(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with explicit(tmp_path) as client:
        with pytest.raises(InferenceServerException, match="failed to load 'nobody'") as caught:
            await client.load_model("nobody")
        assert caught.value.status() == "StatusCode.INTERNAL"


async def test_failed_reload_leaves_the_old_version_serving(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with explicit(tmp_path, "simple") as client:
        write_model(tmp_path, "simple", kind="fail_load", message="bad news", version=2)
        with pytest.raises(InferenceServerException, match="bad news"):
            await client.load_model("simple")
        assert await infer(client) == [[42] * 16]
        index = await client.get_model_repository_index()
        assert "bad news" in " ".join(model.reason for model in index.models)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07\x12" + b"\xff" * 64])
async def test_corrupt_onnx_file_is_a_failed_load_with_a_reason(
    tmp_path: Path, content: bytes
) -> None:
    write_simple(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(content)
    async with explicit(tmp_path, "simple") as client:
        with pytest.raises(InferenceServerException, match="failed to load 'broken'"):
            await client.load_model("broken")
        assert await infer(client) == [[42] * 16]
        assert (await states(client))["broken", "1"] == "UNAVAILABLE"


async def test_missing_model_file_stops_the_start(tmp_path: Path) -> None:
    write_simple(tmp_path)
    (tmp_path / "empty" / "1").mkdir(parents=True)
    with pytest.raises(StartupError, match="'empty'"):
        async with run_server(server_config(tmp_path)):
            pass


async def test_repository_that_vanishes_is_told_and_models_are_served_on(tmp_path: Path) -> None:
    write_simple(tmp_path / "models")
    async with explicit(tmp_path / "models", "simple") as client:
        shutil.rmtree(tmp_path / "models")
        with pytest.raises(InferenceServerException) as caught:
            await client.get_model_repository_index()
        assert caught.value.status() == "StatusCode.INTERNAL"
        assert await infer(client) == [[42] * 16]


async def test_statistics_grow_with_requests(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with explicit(tmp_path, "simple") as client:
        for _ in range(3):
            await infer(client)
        (stats,) = (await client.get_inference_statistics("simple")).model_stats
    assert (stats.name, stats.version) == ("simple", "1")
    assert stats.inference_stats.success.count == stats.inference_stats.queue.count == 3
    assert stats.inference_count == 3
    assert stats.last_inference > 0
    assert sum(batch.batch_size * batch.compute_infer.count for batch in stats.batch_stats) == 3


async def test_metadata_tells_what_perf_analyzer_wants(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with explicit(tmp_path, "simple") as client:
        metadata = await client.get_model_metadata("simple")
        config = (await client.get_model_config("simple")).config
    assert {each.name: list(each.shape) for each in metadata.inputs} == {
        "INPUT0": [-1, 16],
        "INPUT1": [-1, 16],
    }
    assert list(metadata.versions) == ["1"]
    assert config.max_batch_size == 8
    assert not config.HasField("sequence_batching")
