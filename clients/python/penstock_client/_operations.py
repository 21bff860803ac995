"""Every unary RPC as data: what to send, and how to read the answer.

The sync and the asyncio client differ only in how they send; all they send and read is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from penstock_client._infer import InferRequest, InferResult, build_request, read_response
from penstock_client._messages import METHODS, Method, pb
from penstock_client._records import (
    BatchStatistics,
    CudaMemoryRegion,
    Duration,
    MemoryUsage,
    ModelIndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
    TensorMetadata,
)
from penstock_client.cuda_memory import CudaMemory
from penstock_client.errors import SharedMemoryError, TensorError
from penstock_client.regions import MemoryRegion
from penstock_client.shared_memory import SharedMemory

T = TypeVar("T")
RegionT = TypeVar("RegionT", bound=MemoryRegion)


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One unary RPC, ready to be sent.

    Attributes:
        method: Which RPC.
        request: The message to send.
        read: Turns the answer into what the caller gets.
        is_retryable: Whether UNAVAILABLE may be answered by sending it again.
        model: The model it is about, for errors.
        request_id: The caller's id, for errors.
        add: Adds to that what the answer's trailing metadata says; None: nothing.
    """

    method: Method
    request: Message
    read: Callable[[Any], T]
    is_retryable: bool
    model: str = ""
    request_id: str = ""
    add: Callable[[T, Mapping[str, str]], T] | None = None

    def result(self, answer: Any, trailing: Mapping[str, str] | None) -> T:
        """What the caller gets for an answer."""
        found = self.read(answer)
        return found if self.add is None else self.add(found, trailing or {})


def infer(request: InferRequest) -> Operation[InferResult]:
    """ModelInfer; retried unless it is a step of a sequence."""
    return Operation(
        METHODS["ModelInfer"],
        build_request(request),
        partial(read_response, rooms=request.rooms),
        is_retryable=request.may_run_twice,
        model=request.model,
        request_id=request.request_id,
    )


# Health: never retried, for "not now" is an answer here.


def server_live() -> Operation[bool]:
    """ServerLive."""
    return Operation(METHODS["ServerLive"], pb.ServerLiveRequest(), _read_live, False)


def server_ready() -> Operation[bool]:
    """ServerReady."""
    return Operation(METHODS["ServerReady"], pb.ServerReadyRequest(), _read_ready, False)


def model_ready(model: str, version: str) -> Operation[bool]:
    """ModelReady."""
    request = pb.ModelReadyRequest(name=model, version=version)
    return Operation(METHODS["ModelReady"], request, _read_ready, False, model)


# Reading state: retried.


def server_metadata() -> Operation[ServerMetadata]:
    """ServerMetadata."""
    return Operation(
        METHODS["ServerMetadata"], pb.ServerMetadataRequest(), _read_server_metadata, True
    )


def model_metadata(model: str, version: str) -> Operation[ModelMetadata]:
    """ModelMetadata."""
    request = pb.ModelMetadataRequest(name=model, version=version)
    method = METHODS["ModelMetadata"]
    return Operation(method, request, _read_model_metadata, True, model, add=_add_place)


def model_config(model: str, version: str) -> Operation[dict[str, Any]]:
    """ModelConfig."""
    request = pb.ModelConfigRequest(name=model, version=version)
    return Operation(METHODS["ModelConfig"], request, _read_config, True, model)


def statistics(model: str, version: str) -> Operation[tuple[ModelStatistics, ...]]:
    """ModelStatistics."""
    request = pb.ModelStatisticsRequest(name=model, version=version)
    return Operation(METHODS["ModelStatistics"], request, _read_statistics, True, model)


def repository_index(ready_only: bool) -> Operation[tuple[ModelIndexEntry, ...]]:
    """RepositoryIndex."""
    request = pb.RepositoryIndexRequest(ready=ready_only)
    return Operation(METHODS["RepositoryIndex"], request, _read_index, True)


def shared_memory_status(name: str) -> Operation[tuple[SharedMemoryRegion, ...]]:
    """SystemSharedMemoryStatus."""
    request = pb.SystemSharedMemoryStatusRequest(name=name)
    return Operation(METHODS["SystemSharedMemoryStatus"], request, _read_regions, True)


def cuda_memory_status(name: str) -> Operation[tuple[CudaMemoryRegion, ...]]:
    """CudaSharedMemoryStatus."""
    request = pb.CudaSharedMemoryStatusRequest(name=name)
    return Operation(METHODS["CudaSharedMemoryStatus"], request, _read_cuda_regions, True)


# Changing state: never retried. The first send may have had its effect, and UNAVAILABLE is also
# what a server says that allows no loading at all.


def load_model(
    model: str, config: Mapping[str, Any] | str | None, files: Mapping[str, bytes] | None
) -> Operation[None]:
    """RepositoryModelLoad.

    Raises:
        TensorError: A file is not bytes, or the config is not JSON.
    """
    request = pb.RepositoryModelLoadRequest(model_name=model)
    if config is not None:
        request.parameters["config"].string_param = _config_text(model, config)
    for path, content in (files or {}).items():
        if not isinstance(content, bytes):
            raise TensorError(
                f"file '{path}' of model '{model}': got {type(content).__name__}, expected bytes"
            )
        request.parameters[f"file:{path.removeprefix('file:')}"].bytes_param = content
    return Operation(METHODS["RepositoryModelLoad"], request, _read_nothing, False, model)


def unload_model(model: str, unload_dependents: bool) -> Operation[None]:
    """RepositoryModelUnload."""
    request = pb.RepositoryModelUnloadRequest(model_name=model)
    if unload_dependents:
        request.parameters["unload_dependents"].bool_param = True
    return Operation(METHODS["RepositoryModelUnload"], request, _read_nothing, False, model)


def register_shared_memory(memory: MemoryRegion) -> Operation[None]:
    """SystemSharedMemoryRegister or CudaSharedMemoryRegister, of the whole memory."""
    if isinstance(memory, CudaMemory):
        return _register_cuda_memory(memory)
    if not isinstance(memory, SharedMemory):
        raise SharedMemoryError(f"{memory!r} is no memory that servers know")
    request = pb.SystemSharedMemoryRegisterRequest(
        name=memory.name, key=memory.key, byte_size=memory.byte_size
    )
    return Operation(METHODS["SystemSharedMemoryRegister"], request, _read_nothing, False)


def unregister_shared_memory(name: str) -> Operation[None]:
    """SystemSharedMemoryUnregister."""
    request = pb.SystemSharedMemoryUnregisterRequest(name=name)
    return Operation(METHODS["SystemSharedMemoryUnregister"], request, _read_nothing, False)


def _register_cuda_memory(memory: CudaMemory) -> Operation[None]:
    request = pb.CudaSharedMemoryRegisterRequest(
        name=memory.name,
        raw_handle=memory.handle,
        device_id=memory.server_device,
        byte_size=memory.byte_size,
    )
    return Operation(METHODS["CudaSharedMemoryRegister"], request, _read_nothing, False)


def unregister_cuda_memory(name: str) -> Operation[None]:
    """CudaSharedMemoryUnregister."""
    request = pb.CudaSharedMemoryUnregisterRequest(name=name)
    return Operation(METHODS["CudaSharedMemoryUnregister"], request, _read_nothing, False)


def forget(memory: MemoryRegion) -> Operation[None]:
    """The unregistration of what `register_shared_memory` registered."""
    is_cuda = isinstance(memory, CudaMemory)
    return unregister_cuda_memory(memory.name) if is_cuda else unregister_shared_memory(memory.name)


def _config_text(model: str, config: Mapping[str, Any] | str) -> str:
    if isinstance(config, str):
        return config
    try:
        return json.dumps(config)
    except TypeError as error:
        raise TensorError(f"config of model '{model}' cannot be written as JSON: {error}") from None


def _read_nothing(message: Message) -> None:
    del message


def _read_live(message: pb.ServerLiveResponse) -> bool:
    return message.live


def _read_ready(message: pb.ServerReadyResponse | pb.ModelReadyResponse) -> bool:
    return message.ready


def _read_server_metadata(message: pb.ServerMetadataResponse) -> ServerMetadata:
    return ServerMetadata(message.name, message.version, tuple(message.extensions))


def _add_place(found: ModelMetadata, trailing: Mapping[str, str]) -> ModelMetadata:
    return replace(found, runs_on=trailing.get("penstock-runs-on", ""))


def _read_model_metadata(message: pb.ModelMetadataResponse) -> ModelMetadata:
    def tensors(
        found: Iterable[pb.ModelMetadataResponse.TensorMetadata],
    ) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(t.name, t.datatype, tuple(t.shape)) for t in found)

    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=tensors(message.inputs),
        outputs=tensors(message.outputs),
    )


def _read_index(message: pb.RepositoryIndexResponse) -> tuple[ModelIndexEntry, ...]:
    return tuple(ModelIndexEntry(m.name, m.version, m.state, m.reason) for m in message.models)


def _read_regions(
    message: pb.SystemSharedMemoryStatusResponse,
) -> tuple[SharedMemoryRegion, ...]:
    regions = [message.regions[name] for name in sorted(message.regions)]
    return tuple(SharedMemoryRegion(r.name, r.key, r.offset, r.byte_size) for r in regions)


def _read_cuda_regions(
    message: pb.CudaSharedMemoryStatusResponse,
) -> tuple[CudaMemoryRegion, ...]:
    regions = [message.regions[name] for name in sorted(message.regions)]
    return tuple(CudaMemoryRegion(r.name, r.device_id, r.byte_size) for r in regions)


def _read_statistics(message: pb.ModelStatisticsResponse) -> tuple[ModelStatistics, ...]:
    return tuple(_model_statistics(model) for model in message.model_stats)


def _model_statistics(model: pb.ModelStatistics) -> ModelStatistics:
    times = model.inference_stats
    return ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference_ms=model.last_inference,
        inference_count=model.inference_count,
        execution_count=model.execution_count,
        success=_duration(times.success),
        fail=_duration(times.fail),
        queue=_duration(times.queue),
        compute_input=_duration(times.compute_input),
        compute_infer=_duration(times.compute_infer),
        compute_output=_duration(times.compute_output),
        batches=tuple(_batch_statistics(batch) for batch in model.batch_stats),
        memory=tuple(MemoryUsage(m.type, m.id, m.byte_size) for m in model.memory_usage),
    )


def _batch_statistics(batch: pb.InferBatchStatistics) -> BatchStatistics:
    return BatchStatistics(
        batch_size=batch.batch_size,
        compute_input=_duration(batch.compute_input),
        compute_infer=_duration(batch.compute_infer),
        compute_output=_duration(batch.compute_output),
    )


def _duration(duration: pb.StatisticDuration) -> Duration:
    return Duration(duration.count, duration.ns)


def _read_config(message: pb.ModelConfigResponse) -> dict[str, Any]:
    return _as_dict(message.config)


def _as_dict(message: Message) -> dict[str, Any]:
    """Fields by name as in config.pbtxt: defaults spelled out, unset sub-messages left out.

    Unlike protobuf's own JSON mapping it keeps 64-bit numbers as numbers. (Field descriptors are
    Any below: the stubs give them two classes, neither with all that both have.)
    """
    return {
        field.name: _field_value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field_value(field: Any, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        value_field = entry.fields_by_name["value"]
        return {key: _single_value(value_field, value[key]) for key in value}
    if field.is_repeated:
        return [_single_value(field, item) for item in value]
    return _single_value(field, value)


def _single_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _as_dict(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
