"""The methods beside inference: the message each one sends, the record each one returns."""

import json
from typing import Any

import pytest
from tests.unit.client.kinds import KINDS, Kind, settle

from penstock_client import (
    BatchStatistics,
    Call,
    Duration,
    MemoryUsage,
    ModelIndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    TensorError,
    TensorMetadata,
)
from penstock_client._messages import pb

pytestmark = pytest.mark.parametrize("kind", KINDS)


class Reply:
    """Answers everything with one message and keeps what was asked."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.asked: list[tuple[str, Any]] = []

    def __call__(self, call: Call, request: Any) -> Any:
        assert isinstance(request, call.method.request)
        assert isinstance(self.message, call.method.response)
        self.asked.append((call.method.name, request))
        return self.message


@pytest.mark.parametrize("claim", [True, False])
async def test_health_questions(kind: Kind, claim: bool) -> None:
    live = kind.client(Reply(pb.ServerLiveResponse(live=claim)))
    assert await settle(live.server_live()) is claim
    ready = kind.client(Reply(pb.ServerReadyResponse(ready=claim)))
    assert await settle(ready.server_ready()) is claim
    reply = Reply(pb.ModelReadyResponse(ready=claim))
    assert await settle(kind.client(reply).model_ready("m", "2")) is claim
    assert reply.asked == [("ModelReady", pb.ModelReadyRequest(name="m", version="2"))]


async def test_server_metadata(kind: Kind) -> None:
    reply = Reply(pb.ServerMetadataResponse(name="s", version="1", extensions=["statistics"]))
    metadata = await settle(kind.client(reply).server_metadata())
    assert metadata == ServerMetadata("s", "1", ("statistics",))


async def test_model_metadata(kind: Kind) -> None:
    tensor = pb.ModelMetadataResponse.TensorMetadata
    message = pb.ModelMetadataResponse(
        name="m",
        versions=["1", "2"],
        platform="onnxruntime_onnx",
        inputs=[tensor(name="x", datatype="FP32", shape=[-1, 64])],
        outputs=[tensor(name="y", datatype="INT64", shape=[-1])],
    )
    reply = Reply(message)
    metadata = await settle(kind.client(reply).model_metadata("m", "2"))
    assert metadata == ModelMetadata(
        "m",
        ("1", "2"),
        "onnxruntime_onnx",
        (TensorMetadata("x", "FP32", (-1, 64)),),
        (TensorMetadata("y", "INT64", (-1,)),),
    )
    assert reply.asked == [("ModelMetadata", pb.ModelMetadataRequest(name="m", version="2"))]


async def test_model_metadata_has_what_the_trailing_metadata_says(kind: Kind) -> None:
    class Trailing(Reply):
        def __call__(self, call: Call, request: Any) -> Any:
            assert call.trailing is not None
            call.trailing.update({"penstock-runs-on": "GPU 0 (x)", "other": "y"})
            return super().__call__(call, request)

    reply = Trailing(pb.ModelMetadataResponse(name="m"))
    assert (await settle(kind.client(reply).model_metadata("m"))).runs_on == "GPU 0 (x)"


async def test_model_config_is_plain_data_with_defaults_and_numbers(kind: Kind) -> None:
    config = pb.ModelConfig(
        name="m",
        max_batch_size=8,
        input=[pb.ModelInput(name="x", data_type=11, dims=[64])],
        dynamic_batching=pb.ModelDynamicBatching(preferred_batch_size=[4]),
        parameters={"threads": pb.ModelParameter(string_value="1")},
    )
    found = await settle(
        kind.client(Reply(pb.ModelConfigResponse(config=config))).model_config("m")
    )
    assert found["name"] == "m"
    assert found["max_batch_size"] == 8
    assert found["input"][0]["data_type"] == "TYPE_FP32"
    assert found["input"][0]["dims"] == [64]
    assert found["dynamic_batching"]["preferred_batch_size"] == [4]
    assert found["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert found["parameters"] == {"threads": {"string_value": "1"}}
    assert found["output"] == []
    assert "sequence_batching" not in found
    assert "optimization" not in found
    json.dumps(found)


async def test_statistics(kind: Kind) -> None:
    def took(count: int, ns: int) -> Any:
        return pb.StatisticDuration(count=count, ns=ns)

    batch = pb.InferBatchStatistics(batch_size=4, compute_infer=took(1, 900))
    message = pb.ModelStatistics(
        name="m",
        version="1",
        last_inference=17,
        inference_count=6,
        execution_count=2,
        inference_stats=pb.InferStatistics(success=took(6, 3_000_000_000), queue=took(6, 50)),
        batch_stats=[batch],
        memory_usage=[pb.MemoryUsage(type="GPU", id=1, byte_size=1 << 40)],
    )
    reply = Reply(pb.ModelStatisticsResponse(model_stats=[message]))
    (found,) = await settle(kind.client(reply).statistics("m"))
    assert found == ModelStatistics(
        "m",
        "1",
        last_inference_ms=17,
        inference_count=6,
        execution_count=2,
        success=Duration(6, 3_000_000_000),
        queue=Duration(6, 50),
        batches=(BatchStatistics(4, Duration(), Duration(1, 900), Duration()),),
        memory=(MemoryUsage("GPU", 1, 1 << 40),),
    )
    assert found.success.mean_s == 0.5
    assert found.fail.mean_s == 0.0


async def test_repository_index(kind: Kind) -> None:
    entry = pb.RepositoryIndexResponse.ModelIndex
    reply = Reply(
        pb.RepositoryIndexResponse(
            models=[
                entry(name="a", version="1", state="READY"),
                entry(name="b", version="", state="UNAVAILABLE", reason="no file"),
            ]
        )
    )
    index = await settle(kind.client(reply).repository_index(ready_only=True))
    assert index == (
        ModelIndexEntry("a", "1", "READY", ""),
        ModelIndexEntry("b", "", "UNAVAILABLE", "no file"),
    )
    assert reply.asked == [("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))]


@pytest.mark.parametrize("config", ['{"max_batch_size": 4}', {"max_batch_size": 4}])
async def test_load_carries_config_and_files(kind: Kind, config: Any) -> None:
    reply = Reply(pb.RepositoryModelLoadResponse())
    files = {"1/model.onnx": b"onnx", "file:2/model.onnx": b"newer"}
    assert await settle(kind.client(reply).load_model("m", config=config, files=files)) is None
    parameter = pb.ModelRepositoryParameter
    expected = pb.RepositoryModelLoadRequest(
        model_name="m",
        parameters={
            "config": parameter(string_param='{"max_batch_size": 4}'),
            "file:1/model.onnx": parameter(bytes_param=b"onnx"),
            "file:2/model.onnx": parameter(bytes_param=b"newer"),
        },
    )
    assert reply.asked == [("RepositoryModelLoad", expected)]


async def test_load_that_cannot_be_sent_is_refused(kind: Kind) -> None:
    client = kind.client(Reply(pb.RepositoryModelLoadResponse()))
    with pytest.raises(TensorError, match="file '1/m' of model 'm': got str, expected bytes"):
        await settle(client.load_model("m", files={"1/m": "text"}))
    with pytest.raises(TensorError, match="config of model 'm' cannot be written as JSON"):
        await settle(client.load_model("m", config={"x": object()}))


async def test_unload_says_dependents_only_when_asked(kind: Kind) -> None:
    reply = Reply(pb.RepositoryModelUnloadResponse())
    client = kind.client(reply)
    assert await settle(client.unload_model("m")) is None
    await settle(client.unload_model("m", unload_dependents=True))
    parameter = pb.ModelRepositoryParameter(bool_param=True)
    assert [request for _, request in reply.asked] == [
        pb.RepositoryModelUnloadRequest(model_name="m"),
        pb.RepositoryModelUnloadRequest(
            model_name="m", parameters={"unload_dependents": parameter}
        ),
    ]
