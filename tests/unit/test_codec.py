"""Control-plane messages, judged by the classes that public clients were compiled with."""

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from penstock import codec
from penstock.errors import InvalidArgumentError

GARBAGE = b"\xff\xff\xff"


def test_model_requests_are_read() -> None:
    for rpc in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        data = getattr(service_pb2, f"{rpc}Request")(name="m", version="2").SerializeToString()
        assert codec.parse_model_request(rpc, data) == codec.ModelRef("m", "2")
        assert codec.parse_model_request(rpc, b"") == codec.ModelRef("", "")


def test_index_request_is_read() -> None:
    data = service_pb2.RepositoryIndexRequest(repository_name="r", ready=True).SerializeToString()
    assert codec.parse_index_request(data) == codec.IndexRequest("r", True)


def load_request(**parameters: tuple[str, object]) -> bytes:
    message = service_pb2.RepositoryModelLoadRequest(model_name="m", repository_name="r")
    for key, (field, value) in parameters.items():
        setattr(message.parameters[key], field, value)
    return bytes(message.SerializeToString())


def test_load_request_is_read() -> None:
    assert codec.parse_load_request(load_request()) == codec.LoadRequest("r", "m", None, ())
    data = load_request(
        **{
            "config": ("string_param", "{}"),
            "file:1/b": ("bytes_param", b"x"),
            "file:1/a": ("bytes_param", b"y"),
        }
    )
    assert codec.parse_load_request(data) == codec.LoadRequest("r", "m", "{}", ("1/a", "1/b"))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"config": ("int64_param", 3)}, "'config' for model 'm' must be a string, got int64_para"),
        ({"other": ("bool_param", True)}, "unrecognized load parameter 'other' for model 'm'"),
    ],
)
def test_bad_load_parameters(parameters: dict[str, tuple[str, object]], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        codec.parse_load_request(load_request(**parameters))


def test_unload_request_is_read() -> None:
    message = service_pb2.RepositoryModelUnloadRequest(model_name="m")
    assert codec.parse_unload_request(message.SerializeToString()).unload_dependents is False
    message.parameters["unload_dependents"].bool_param = True
    assert codec.parse_unload_request(message.SerializeToString()) == codec.UnloadRequest(
        "", "m", True
    )


@pytest.mark.parametrize(
    ("key", "field", "value", "text"),
    [
        ("unload_dependents", "string_param", "yes", "must be a bool, got string_param"),
        ("other", "bool_param", True, "unrecognized unload parameter 'other'"),
    ],
)
def test_bad_unload_parameters(key: str, field: str, value: object, text: str) -> None:
    message = service_pb2.RepositoryModelUnloadRequest(model_name="m")
    setattr(message.parameters[key], field, value)
    with pytest.raises(InvalidArgumentError, match=text):
        codec.parse_unload_request(message.SerializeToString())


def test_garbage_is_an_invalid_argument() -> None:
    for rpc in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        with pytest.raises(InvalidArgumentError, match=f"not a valid {rpc}Request message"):
            codec.parse_model_request(rpc, GARBAGE)
    for rpc in ("ServerLive", "ServerReady", "ServerMetadata"):
        codec.check_request(rpc, b"")
        with pytest.raises(InvalidArgumentError, match=f"not a valid {rpc}Request message"):
            codec.check_request(rpc, GARBAGE)
    for parse in (codec.parse_index_request, codec.parse_load_request, codec.parse_unload_request):
        with pytest.raises(InvalidArgumentError, match="not a valid Repository"):
            parse(GARBAGE)


@pytest.mark.parametrize("value", [True, False])
def test_flags(value: bool) -> None:
    live = service_pb2.ServerLiveResponse.FromString(codec.encode_server_live(value))
    ready = service_pb2.ServerReadyResponse.FromString(codec.encode_server_ready(value))
    model = service_pb2.ModelReadyResponse.FromString(codec.encode_model_ready(value))
    assert (live.live, ready.ready, model.ready) == (value, value, value)


def test_server_metadata_lists_what_works() -> None:
    data = codec.encode_server_metadata("penstock", "1.2")
    message = service_pb2.ServerMetadataResponse.FromString(data)
    assert (message.name, message.version) == ("penstock", "1.2")
    assert "statistics" in message.extensions
    assert "sequence" not in message.extensions
    assert "system_shared_memory" not in message.extensions


def test_server_metadata_lists_what_it_is_told() -> None:
    data = codec.encode_server_metadata("penstock", "1.2", ("system_shared_memory",))
    message = service_pb2.ServerMetadataResponse.FromString(data)
    assert list(message.extensions) == ["system_shared_memory"]


def test_shared_memory_requests() -> None:
    message = service_pb2.SystemSharedMemoryRegisterRequest(
        name="r", key="/k", offset=8, byte_size=2**64 - 1
    )
    expected = codec.SharedRegion("r", "/k", 8, 2**64 - 1)
    assert codec.parse_register_request(message.SerializeToString()) == expected
    for rpc in ("SystemSharedMemoryStatus", "CudaSharedMemoryStatus", "CudaSharedMemoryRegister"):
        named = getattr(service_pb2, f"{rpc}Request")(name="r")
        assert codec.parse_region_name(rpc, named.SerializeToString()) == "r"
        with pytest.raises(InvalidArgumentError, match=f"not a valid {rpc}Request message"):
            codec.parse_region_name(rpc, b"\xff")


def test_shared_memory_status_is_a_map_by_name() -> None:
    regions = [codec.SharedRegion("a", "/k", 0, 8), codec.SharedRegion("b", "/l", 4, 16)]
    message = service_pb2.SystemSharedMemoryStatusResponse.FromString(codec.encode_regions(regions))
    found = {
        name: (each.key, each.offset, each.byte_size) for name, each in message.regions.items()
    }
    assert found == {"a": ("/k", 0, 8), "b": ("/l", 4, 16)}
    assert message.regions["b"].name == "b"
    assert codec.encode_done("SystemSharedMemoryUnregister") == b""


def test_model_metadata() -> None:
    metadata = codec.ModelMetadata(
        "m",
        ("1", "3"),
        "onnxruntime_onnx",
        (codec.TensorMetadata("x", "FP32", (-1, 4)),),
        (codec.TensorMetadata("y", "BYTES", (-1,)),),
    )
    data = codec.encode_model_metadata(metadata)
    message = service_pb2.ModelMetadataResponse.FromString(data)
    assert (message.name, list(message.versions)) == ("m", ["1", "3"])
    assert message.platform == "onnxruntime_onnx"
    (x,), (y,) = message.inputs, message.outputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 4])
    assert (y.name, y.datatype, list(y.shape)) == ("y", "BYTES", [-1])


def test_index() -> None:
    entries = [codec.IndexEntry("a"), codec.IndexEntry("b", "1", "UNAVAILABLE", "why")]
    message = service_pb2.RepositoryIndexResponse.FromString(codec.encode_index(entries))
    assert [(m.name, m.version, m.state, m.reason) for m in message.models] == [
        ("a", "", "", ""),
        ("b", "1", "UNAVAILABLE", "why"),
    ]


def test_load_and_unload_responses_are_read_by_public_clients() -> None:
    service_pb2.RepositoryModelLoadResponse.FromString(codec.encode_load_response("m"))
    service_pb2.RepositoryModelUnloadResponse.FromString(codec.encode_unload_response("m"))
    assert b"m" in codec.encode_load_response("m")


COUNTERS = {
    "success": {"count": 3, "ns": 30},
    "fail": {"count": 1, "ns": 5},
    "queue": {"count": 3, "ns": 6},
    "compute_input": {"count": 3, "ns": 7},
    "compute_infer": {"count": 3, "ns": 8},
    "compute_output": {"count": 3, "ns": 9},
    "inference_count": 12,
    "execution_count": 2,
    "last_inference_ms": 1_700_000_000_000,
    "batch_stats": {
        8: {"count": 1, "compute_input_ns": 1, "compute_infer_ns": 2, "compute_output_ns": 3},
        4: {"count": 1, "compute_input_ns": 4, "compute_infer_ns": 5, "compute_output_ns": 6},
    },
    "devices": [{"kind": "GPU", "id": 1, "memory_bytes": 1 << 40}],
}


def test_statistics() -> None:
    data = codec.encode_statistics([codec.VersionStatistics("m", 2, COUNTERS)])
    (message,) = service_pb2.ModelStatisticsResponse.FromString(data).model_stats
    assert (message.name, message.version) == ("m", "2")
    assert (message.inference_count, message.execution_count) == (12, 2)
    assert message.last_inference == 1_700_000_000_000
    stats = message.inference_stats
    found = {
        name: (getattr(stats, name).count, getattr(stats, name).ns)
        for name in ("success", "fail", "queue", "compute_input", "compute_infer")
    }
    assert found == {
        "success": (3, 30),
        "fail": (1, 5),
        "queue": (3, 6),
        "compute_input": (3, 7),
        "compute_infer": (3, 8),
    }
    assert (stats.compute_output.ns, stats.HasField("cache_hit")) == (9, True)
    first, second = message.batch_stats
    assert (first.batch_size, first.compute_infer.count, first.compute_infer.ns) == (4, 1, 5)
    assert (second.batch_size, second.compute_output.ns) == (8, 3)
    (memory,) = message.memory_usage
    assert (memory.type, memory.id, memory.byte_size) == ("GPU", 1, 1 << 40)


def test_infer_request() -> None:
    tensors = [codec.RawTensor("x", "INT8", (1, 2), b"\1\2"), codec.RawTensor("y", "BOOL", (), b"")]
    data = codec.build_infer_request("m", 7, tensors)
    message = service_pb2.ModelInferRequest.FromString(data)
    assert (message.model_name, message.model_version) == ("m", "7")
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("x", "INT8", [1, 2]),
        ("y", "BOOL", []),
    ]
    assert list(message.raw_input_contents) == [b"\1\2", b""]


def test_model_config_leaves_unset_what_is_unset() -> None:
    data = codec.encode_model_config(codec.ModelConfig(name="m", max_batch_size=0))
    config = service_pb2.ModelConfigResponse.FromString(data).config
    assert config == model_config_pb2.ModelConfig(name="m")
    assert config.WhichOneof("scheduling_choice") is None


def test_dynamic_batching_is_present_when_it_is_on() -> None:
    given = codec.ModelConfig(dynamic_batching=codec.DynamicBatching())
    data = codec.encode_model_config(given)
    config = service_pb2.ModelConfigResponse.FromString(data).config
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
