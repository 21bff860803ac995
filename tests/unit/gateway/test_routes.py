"""Every route that is no inference, against a fake upstream; and what never gets through."""

import base64
from typing import Any

import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, echo, metadata
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import CloudRoutes, Options

Pairs = list[tuple[str, str]]


async def get(upstream: FakeUpstream, path: str, **options: Any) -> AsgiReply:
    return await ask_asgi(Gateway(upstream, Options(**options)), "GET", path)


async def post(
    upstream: FakeUpstream,
    path: str,
    body: object = b"",
    headers: Pairs | None = None,
    **options: Any,
) -> AsgiReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    gateway = Gateway(upstream, Options(**options))
    return await ask_asgi(gateway, "POST", path, data, headers or [])


async def test_health_has_the_bodies_of_kserve() -> None:
    upstream = FakeUpstream({"ModelReady": wire.ModelReadyResponse(ready=True)})
    assert (await get(upstream, "/v2/health/live")).json == {"live": True}
    assert (await get(upstream, "/v2/health/ready")).json == {"ready": True}
    ready = await get(upstream, "/v2/models/m/versions/3/ready")
    assert (ready.status, ready.json) == (200, {"name": "m", "ready": True})
    assert (upstream.last.name, upstream.last.version) == ("m", "3")
    upstream.is_ready = False
    unready = await get(upstream, "/v2/health/ready")
    assert (unready.status, unready.json) == (400, {"ready": False})
    upstream.answers["ModelReady"] = wire.ModelReadyResponse(ready=False)
    reply = await get(upstream, "/v2/models/m/ready")
    assert (reply.status, reply.json["ready"]) == (400, False)
    assert reply.json["error"] == "model 'm' is not ready"


async def test_metadata_shows_names_and_numbers() -> None:
    server = wire.ServerMetadataResponse(name="s", version="1", extensions=["a"])
    model = metadata(X=("FP32", [-1, 4]))
    upstream = FakeUpstream({"ServerMetadata": server, "ModelMetadata": model})
    assert (await get(upstream, "/v2")).json == {"name": "s", "version": "1", "extensions": ["a"]}
    shown = (await get(upstream, "/v2/models/m")).json
    assert shown["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert shown["outputs"] == []


async def test_config_prints_defaults_and_leaves_out_what_is_not_set() -> None:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    config.input.add(name="X", data_type="TYPE_INT32", dims=[2**40])
    config.model_transaction_policy.decoupled = False
    config.parameters["k"].string_value = "v"
    upstream = FakeUpstream({"ModelConfig": wire.ModelConfigResponse(config=config)})
    shown = (await get(upstream, "/v2/models/m/config")).json
    assert shown["input"][0]["data_type"] == "TYPE_INT32"
    assert shown["input"][0]["dims"] == [2**40]  # a number, not a string
    assert shown["model_transaction_policy"] == {"decoupled": False}
    assert shown["parameters"] == {"k": {"string_value": "v"}}
    assert shown["backend"] == ""
    assert "dynamic_batching" not in shown and "sequence_batching" not in shown


async def test_statistics_have_every_duration() -> None:
    reply = wire.ModelStatisticsResponse()
    reply.model_stats.add(name="m", version="1", inference_count=2**40)
    upstream = FakeUpstream({"ModelStatistics": reply})
    for path in ("/v2/models/stats", "/v2/models/m/stats"):
        (shown,) = (await get(upstream, path)).json["model_stats"]
        assert shown["inference_count"] == 2**40
        assert shown["inference_stats"]["cache_hit"] == {"count": 0, "ns": 0}


async def test_index_is_an_array() -> None:
    reply = wire.RepositoryIndexResponse()
    reply.models.add(name="m", version="1", state="READY")
    upstream = FakeUpstream({"RepositoryIndex": reply})
    shown = await post(upstream, "/v2/repository/index", {"ready": True})
    assert shown.json == [{"name": "m", "version": "1", "state": "READY"}]
    assert upstream.last.ready
    assert (await post(upstream, "/v2/repository/r/index")).status == 200
    assert (upstream.last.repository_name, upstream.last.ready) == ("r", False)


async def test_load_and_unload_hand_on_their_parameters() -> None:
    answers = {
        "RepositoryModelLoad": wire.RepositoryModelLoadResponse(),
        "RepositoryModelUnload": wire.RepositoryModelUnloadResponse(),
    }
    upstream = FakeUpstream(answers)
    encoded = base64.b64encode(b"\x00weights").decode()
    given = {"parameters": {"config": "{}", "file:1/model.onnx": encoded}}
    assert (await post(upstream, "/v2/repository/models/m/load", given)).status == 200
    assert upstream.last.parameters["config"].string_param == "{}"
    assert upstream.last.parameters["file:1/model.onnx"].bytes_param == b"\x00weights"
    assert upstream.calls[-1][0].changes_server and not upstream.calls[-1][0].may_repeat
    given = {"parameters": {"unload_dependents": True}}  # type: ignore[dict-item]
    assert (await post(upstream, "/v2/repository/models/m/unload", given)).status == 200
    assert upstream.last.parameters["unload_dependents"].bool_param
    broken = await post(upstream, "/v2/repository/models/m/load", {"parameters": {"file:x": "!"}})
    assert (broken.status, broken.json["error"]) == (400, "'file:x' is not base64")


async def test_shared_memory_routes() -> None:
    status = wire.SystemSharedMemoryStatusResponse()
    status.regions["r"].name, status.regions["r"].byte_size = "r", 8
    answers = {
        "SystemSharedMemoryStatus": status,
        "SystemSharedMemoryRegister": wire.SystemSharedMemoryRegisterResponse(),
        "SystemSharedMemoryUnregister": wire.SystemSharedMemoryUnregisterResponse(),
        "CudaSharedMemoryRegister": wire.CudaSharedMemoryRegisterResponse(),
        "CudaSharedMemoryStatus": wire.CudaSharedMemoryStatusResponse(),
    }
    upstream = FakeUpstream(answers)
    base = "/v2/systemsharedmemory"
    shown = await get(upstream, f"{base}/region/r/status")
    assert shown.json == [{"name": "r", "key": "", "offset": 0, "byte_size": 8}]
    given = {"key": "/k", "offset": 4, "byte_size": 8}
    assert (await post(upstream, f"{base}/region/r/register", given)).status == 200
    sent = upstream.last
    assert (sent.name, sent.key, sent.offset, sent.byte_size) == ("r", "/k", 4, 8)
    assert (await post(upstream, f"{base}/unregister")).status == 200
    cuda = {"raw_handle": {"b64": "aGk="}, "device_id": 1, "byte_size": 8}
    path = "/v2/cudasharedmemory/region/r/register"
    assert (await post(upstream, path, cuda)).status == 200
    assert (upstream.last.raw_handle, upstream.last.device_id) == (b"hi", 1)
    assert (await get(upstream, "/v2/cudasharedmemory/status")).json == []
    for bad in ({}, {"byte_size": -1}, {"byte_size": "8"}, {"byte_size": True}):
        assert (await post(upstream, f"{base}/region/r/register", bad)).status == 400


async def test_settings_are_read_and_changed() -> None:
    logs, traces = wire.LogSettingsResponse(), wire.TraceSettingResponse()
    logs.settings["log_info"].bool_param = True
    logs.settings["log_verbose_level"].uint32_param = 1
    traces.settings["trace_level"].value.append("OFF")
    traces.settings["trace_rate"].value.append("1000")
    upstream = FakeUpstream({"LogSettings": logs, "TraceSetting": traces})
    assert (await get(upstream, "/v2/logging")).json == {"log_info": True, "log_verbose_level": 1}
    assert not upstream.last.settings
    await post(upstream, "/v2/logging", {"log_info": False, "log_format": "default"})
    assert upstream.last.settings["log_format"].string_param == "default"
    assert (await post(upstream, "/v2/logging", {"log_info": [1]})).status == 400
    shown = await get(upstream, "/v2/models/m/trace/setting")
    assert shown.json == {"trace_level": ["OFF"], "trace_rate": "1000"}
    given = {"trace_level": ["A", "B"], "trace_rate": "1", "trace_file": None}
    await post(upstream, "/v2/trace/setting", given)
    assert list(upstream.last.settings["trace_level"].value) == ["A", "B"]
    assert list(upstream.last.settings["trace_file"].value) == []


async def test_no_other_path_and_no_other_verb() -> None:
    upstream = FakeUpstream()
    for path in (
        "/",
        "/v2/",
        "/v3",
        "/v2/models",
        "/v2/models/m/infer/x",
        "//v2",
        "/v2/x/../models",
    ):
        reply = await get(upstream, path)
        assert (reply.status, reply.json) == (404, {"error": "Not Found"}), path
    wrong = await get(upstream, "/v2/models/m/infer")
    assert (wrong.status, wrong.json) == (405, {"error": "Method Not Allowed"})
    assert wrong.headers["allow"] == "POST"


async def test_sagemaker_and_vertex_routes() -> None:
    clouds = CloudRoutes.of({"AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p"}, "m")
    upstream = FakeUpstream({"ModelInfer": echo, "ModelMetadata": metadata(X=("FP32", [-1, 2]))})
    assert (await get(upstream, "/ping")).status == 200
    assert (await get(upstream, "/h", clouds=clouds)).status == 200
    entry = {"name": "X", "datatype": "FP32", "shape": [1], "data": [1.5]}
    for path in ("/p", "/invocations"):
        reply = await post(upstream, path, {"inputs": [entry]}, clouds=clouds)
        assert reply.json["outputs"][0]["data"] == [1.5]
        assert upstream.last.model_name == "m"
    head = orjson.dumps(
        {"inputs": [{**entry, "data": None, "parameters": {"binary_data_size": 4}}]}
    )
    head = head.replace(b',"data":null', b"")
    kind = f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(head)}"
    binary = await post(
        upstream, "/invocations", head + bytes(4), [("content-type", kind)], clouds=clouds
    )
    assert binary.json["outputs"][0]["data"] == [0.0]
    head = head.replace(b"{", b'{"parameters":{"binary_data_output":true},', 1)
    kind = f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(head)}"
    both = await post(
        upstream, "/invocations", head + bytes(4), [("content-type", kind)], clouds=clouds
    )
    size = int(both.headers["content-type"].rpartition("json-header-size=")[2])
    assert both.body[size:] == bytes(4) and orjson.loads(both.body[:size])["model_name"] == "m"
    assert (await post(upstream, "/invocations", {"inputs": []})).status == 400
    assert (await post(upstream, "/p", {"inputs": []})).status == 404
    upstream.is_ready = False
    assert (await get(upstream, "/ping")).status == 400


@pytest.mark.parametrize(
    ("instances", "status"),
    [
        ([[1, 2], [3, 4]], 200),
        ([{"X": [1, 2]}, {"X": [3, 4]}], 200),
        ([{"X": [1, 2]}, {"Z": [3, 4]}], 400),
        ([{"X": [1, 2]}, [3, 4]], 400),
        ([{"X": [1, 2]}, {"X": [3]}], 400),
        ("no", 400),
    ],
)
async def test_instances_of_vertex_are_answered_with_predictions(
    instances: Any, status: int
) -> None:
    answers = {"ModelInfer": echo, "ModelMetadata": metadata(X=("FP32", [-1, 2]))}
    upstream = FakeUpstream(answers)
    clouds = CloudRoutes(default_model="m")
    reply = await post(upstream, "/invocations", {"instances": instances}, clouds=clouds)
    assert reply.status == status
    if status == 200:
        assert reply.json == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}
