"""Requests and responses of every RPC but the two that infer: those never leave the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from penstock._messages import METHODS, pb
from penstock.codec._config_writer import config_message
from penstock.codec._records import (
    CudaRegion,
    IndexEntry,
    IndexRequest,
    LoadRequest,
    ModelConfig,
    ModelMetadata,
    ModelRef,
    RawTensor,
    SharedRegion,
    TensorMetadata,
    UnloadRequest,
    VersionStatistics,
)
from penstock.errors import InvalidArgumentError

MessageT = TypeVar("MessageT", bound=Message)

EXTENSIONS = (
    "classification",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)
"""The protocol extensions that work. Trace is none: its settings can be read, there is no trace."""


def parse_message(kind: type[MessageT], data: bytes) -> MessageT:
    """The message that the bytes are; InvalidArgumentError where they are none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        name = kind.DESCRIPTOR.name
        raise InvalidArgumentError(f"the request is not a valid {name} message") from error


def check_request(rpc: str, data: bytes) -> None:
    """Checks a request whose content does not matter (ServerLive, ServerReady, ServerMetadata).

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    parse_message(METHODS[rpc].request, data)


def parse_model_request(rpc: str, data: bytes) -> ModelRef:
    """Reads the request of ModelReady, ModelMetadata, ModelConfig or ModelStatistics.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    message: Any = parse_message(METHODS[rpc].request, data)
    return ModelRef(message.name, message.version)


def parse_index_request(data: bytes) -> IndexRequest:
    """Reads a RepositoryIndexRequest; InvalidArgumentError as above."""
    message = parse_message(pb.RepositoryIndexRequest, data)
    return IndexRequest(message.repository_name, message.ready)


def parse_load_request(data: bytes) -> LoadRequest:
    """Reads a RepositoryModelLoadRequest.

    Raises:
        InvalidArgumentError: not such a message, or a parameter is unknown or of the wrong type.
    """
    message = parse_message(pb.RepositoryModelLoadRequest, data)
    config_json: str | None = None
    files = []
    for key, value in message.parameters.items():
        if key == "config":
            config_json = _string_parameter(message.model_name, key, value)
        elif key.startswith("file:"):
            files.append(key.removeprefix("file:"))
        else:
            raise InvalidArgumentError(
                f"unrecognized load parameter '{key}' for model '{message.model_name}'"
            )
    return LoadRequest(
        message.repository_name, message.model_name, config_json, tuple(sorted(files))
    )


def _string_parameter(model: str, key: str, value: pb.ModelRepositoryParameter) -> str:
    kind = value.WhichOneof("parameter_choice")
    if kind != "string_param":
        raise InvalidArgumentError(
            f"load parameter '{key}' for model '{model}' must be a string, got {kind or 'nothing'}"
        )
    return value.string_param


def parse_unload_request(data: bytes) -> UnloadRequest:
    """Reads a RepositoryModelUnloadRequest.

    Raises:
        InvalidArgumentError: not such a message, or a parameter is unknown or of the wrong type.
    """
    message = parse_message(pb.RepositoryModelUnloadRequest, data)
    dependents = False
    for key, value in message.parameters.items():
        if key != "unload_dependents":
            raise InvalidArgumentError(
                f"unrecognized unload parameter '{key}' for model '{message.model_name}'"
            )
        kind = value.WhichOneof("parameter_choice")
        if kind != "bool_param":
            raise InvalidArgumentError(
                f"unload parameter '{key}' for model '{message.model_name}' must be a bool, "
                f"got {kind or 'nothing'}"
            )
        dependents = value.bool_param
    return UnloadRequest(message.repository_name, message.model_name, dependents)


def parse_region_name(rpc: str, data: bytes) -> str:
    """Reads whom a Status or Unregister request is about; "" = all.

    Raises:
        InvalidArgumentError: the bytes are not such a message.
    """
    message: Any = parse_message(METHODS[rpc].request, data)
    name: str = message.name
    return name


def parse_register_request(data: bytes) -> SharedRegion:
    """Reads a SystemSharedMemoryRegisterRequest; InvalidArgumentError as above."""
    message = parse_message(pb.SystemSharedMemoryRegisterRequest, data)
    return SharedRegion(message.name, message.key, message.offset, message.byte_size)


def parse_cuda_register_request(data: bytes) -> tuple[bytes, CudaRegion]:
    """Reads a CudaSharedMemoryRegisterRequest; the handle first. InvalidArgumentError as above."""
    message = parse_message(pb.CudaSharedMemoryRegisterRequest, data)
    return message.raw_handle, CudaRegion(message.name, message.device_id, message.byte_size)


def encode_server_live(live: bool) -> bytes:
    """The bytes of a ServerLiveResponse."""
    return pb.ServerLiveResponse(live=live).SerializeToString()


def encode_server_ready(ready: bool) -> bytes:
    """The bytes of a ServerReadyResponse."""
    return pb.ServerReadyResponse(ready=ready).SerializeToString()


def encode_model_ready(ready: bool) -> bytes:
    """The bytes of a ModelReadyResponse."""
    return pb.ModelReadyResponse(ready=ready).SerializeToString()


def encode_server_metadata(
    name: str, version: str, extensions: Sequence[str] = EXTENSIONS
) -> bytes:
    """The bytes of a ServerMetadataResponse."""
    return pb.ServerMetadataResponse(
        name=name, version=version, extensions=extensions
    ).SerializeToString()


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """The bytes of a ModelMetadataResponse."""
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=_tensor_metadata(metadata.inputs),
        outputs=_tensor_metadata(metadata.outputs),
    ).SerializeToString()


def _tensor_metadata(
    tensors: Iterable[TensorMetadata],
) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    return [
        pb.ModelMetadataResponse.TensorMetadata(name=t.name, datatype=t.datatype, shape=t.shape)
        for t in tensors
    ]


def encode_model_config(config: ModelConfig) -> bytes:
    """The bytes of a ModelConfigResponse; what the configuration leaves unset stays unset."""
    return pb.ModelConfigResponse(config=config_message(config)).SerializeToString()


def encode_index(entries: Iterable[IndexEntry]) -> bytes:
    """The bytes of a RepositoryIndexResponse."""
    return pb.RepositoryIndexResponse(
        models=[
            pb.RepositoryIndexResponse.ModelIndex(
                name=e.name, version=e.version, state=e.state, reason=e.reason
            )
            for e in entries
        ]
    ).SerializeToString()


def encode_load_response(model_name: str) -> bytes:
    """The bytes of a RepositoryModelLoadResponse; its fields are KServe's."""
    return pb.RepositoryModelLoadResponse(model_name=model_name, isLoaded=True).SerializeToString()


def encode_unload_response(model_name: str) -> bytes:
    """The bytes of a RepositoryModelUnloadResponse."""
    return pb.RepositoryModelUnloadResponse(
        model_name=model_name, isUnloaded=True
    ).SerializeToString()


def encode_regions(regions: Iterable[SharedRegion]) -> bytes:
    """The bytes of a SystemSharedMemoryStatusResponse."""
    return pb.SystemSharedMemoryStatusResponse(
        regions={
            each.name: pb.SystemSharedMemoryStatusResponse.RegionStatus(
                name=each.name, key=each.key, offset=each.offset, byte_size=each.byte_size
            )
            for each in regions
        }
    ).SerializeToString()


def encode_cuda_regions(regions: Iterable[CudaRegion]) -> bytes:
    """The bytes of a CudaSharedMemoryStatusResponse."""
    return pb.CudaSharedMemoryStatusResponse(
        regions={
            each.name: pb.CudaSharedMemoryStatusResponse.RegionStatus(
                name=each.name, device_id=each.device_id, byte_size=each.byte_size
            )
            for each in regions
        }
    ).SerializeToString()


def encode_done(rpc: str) -> bytes:
    """The bytes of an RPC's response that has nothing to tell."""
    return METHODS[rpc].response().SerializeToString()


def encode_statistics(statistics: Iterable[VersionStatistics]) -> bytes:
    """The bytes of a ModelStatisticsResponse."""
    return pb.ModelStatisticsResponse(
        model_stats=[_statistics_message(each) for each in statistics]
    ).SerializeToString()


def _statistics_message(statistics: VersionStatistics) -> pb.ModelStatistics:
    counters = statistics.counters
    steps = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    durations = {step: _duration(counters[step]) for step in steps}
    none = pb.StatisticDuration()  # there is no response cache: zero, but present
    return pb.ModelStatistics(
        name=statistics.name,
        version=str(statistics.version),
        last_inference=counters["last_inference_ms"],
        inference_count=counters["inference_count"],
        execution_count=counters["execution_count"],
        inference_stats=pb.InferStatistics(**durations, cache_hit=none, cache_miss=none),
        batch_stats=[
            _batch_statistics(rows, batch)
            for rows, batch in sorted(counters["batch_stats"].items())
        ],
        memory_usage=[
            pb.MemoryUsage(type=use["kind"], id=use["id"], byte_size=use["memory_bytes"])
            for use in counters["devices"]
        ],
    )


def _duration(counter: Mapping[str, int]) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=counter["count"], ns=counter["ns"])


def _batch_statistics(rows: int, batch: Mapping[str, int]) -> pb.InferBatchStatistics:
    steps = ("compute_input", "compute_infer", "compute_output")
    durations = {
        step: pb.StatisticDuration(count=batch["count"], ns=batch[f"{step}_ns"]) for step in steps
    }
    return pb.InferBatchStatistics(batch_size=rows, **durations)


def build_infer_request(model_name: str, version: int, inputs: Sequence[RawTensor]) -> bytes:
    """The bytes of a ModelInferRequest that the server sends to itself (warm-up)."""
    return pb.ModelInferRequest(
        model_name=model_name,
        model_version=str(version),
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=t.name, datatype=t.datatype, shape=t.shape)
            for t in inputs
        ],
        raw_input_contents=[t.data for t in inputs],
    ).SerializeToString()
