"""Everything that is no inference: metadata, statistics, the repository, shared memory, settings.

Each handler makes one call with the caller's credentials and shows its answer as JSON.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError
from penstock_gateway.exchange import Exchange
from penstock_gateway.jsons import message_to_json, take

__all__ = [
    "MEMORY_KINDS",
    "index",
    "load",
    "log_settings",
    "memory_register",
    "memory_status",
    "memory_unregister",
    "model_config",
    "model_metadata",
    "model_ready",
    "server_metadata",
    "statistics",
    "trace_settings",
    "unload",
]

MEMORY_KINDS = {"system": "SystemSharedMemory", "cuda": "CudaSharedMemory"}
"""By the word in the path: how the names of the RPCs begin."""

_DURATIONS = "success fail queue compute_input compute_infer compute_output cache_hit cache_miss"
_UINT32_MAX = 2**32 - 1
_RUNS_ON = "penstock-runs-on"


async def server_metadata(exchange: Exchange) -> None:
    """GET /v2."""
    answer = await exchange.unary(
        "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
    )
    await exchange.answer_json(message_to_json(answer))


async def model_metadata(exchange: Exchange) -> None:
    """GET /v2/models/M; with what the model runs on, where the server says so."""
    request = pb.ModelMetadataRequest(name=exchange.path("model"), version=exchange.path("version"))
    trailing: dict[str, str] = {}
    answer = await exchange.unary(
        "ModelMetadata", request, pb.ModelMetadataResponse, trailing=trailing
    )
    document = message_to_json(answer)
    if _RUNS_ON in trailing:
        document["parameters"] = {"runs_on": trailing[_RUNS_ON]}
    await exchange.answer_json(document)


async def model_ready(exchange: Exchange) -> None:
    """GET /v2/models/M/ready: 200 or 400."""
    name = exchange.path("model")
    request = pb.ModelReadyRequest(name=name, version=exchange.path("version"))
    answer = await exchange.unary("ModelReady", request, pb.ModelReadyResponse)
    if answer.ready:
        await exchange.answer_json({"name": name, "ready": True})
    else:
        error = f"model '{name}' is not ready"
        await exchange.answer_json({"name": name, "ready": False, "error": error}, 400)


async def model_config(exchange: Exchange) -> None:
    """GET /v2/models/M/config."""
    request = pb.ModelConfigRequest(name=exchange.path("model"), version=exchange.path("version"))
    answer = await exchange.unary("ModelConfig", request, pb.ModelConfigResponse)
    await exchange.answer_json(message_to_json(answer.config))


async def statistics(exchange: Exchange) -> None:
    """GET /v2/models/stats and /v2/models/M/stats."""
    request = pb.ModelStatisticsRequest(
        name=exchange.path("model"), version=exchange.path("version")
    )
    answer = await exchange.unary("ModelStatistics", request, pb.ModelStatisticsResponse)
    document = message_to_json(answer)
    for each in document["model_stats"]:  # perf_analyzer fails where one of them is missing
        durations = each.setdefault("inference_stats", {})
        for name in _DURATIONS.split():
            durations.setdefault(name, {"count": 0, "ns": 0})
    await exchange.answer_json(document)


async def index(exchange: Exchange) -> None:
    """POST /v2/repository/index: an array."""
    request = pb.RepositoryIndexRequest(
        repository_name=exchange.path("repository"),
        ready=take(await exchange.json(), "ready", bool, False, "the request"),
    )
    answer = await exchange.unary("RepositoryIndex", request, pb.RepositoryIndexResponse)
    entries = (message_to_json(each) for each in answer.models)
    await exchange.answer_json([{k: v for k, v in entry.items() if v} for entry in entries])


async def load(exchange: Exchange) -> None:
    """POST /v2/repository/models/M/load."""
    request = pb.RepositoryModelLoadRequest(
        repository_name=exchange.path("repository"), model_name=exchange.path("model")
    )
    await _read_repository_parameters(exchange, request)
    answer = pb.RepositoryModelLoadResponse
    await exchange.unary("RepositoryModelLoad", request, answer, **_CHANGE)
    await exchange.answer_json({})


async def unload(exchange: Exchange) -> None:
    """POST /v2/repository/models/M/unload."""
    request = pb.RepositoryModelUnloadRequest(
        repository_name=exchange.path("repository"), model_name=exchange.path("model")
    )
    await _read_repository_parameters(exchange, request)
    answer = pb.RepositoryModelUnloadResponse
    await exchange.unary("RepositoryModelUnload", request, answer, **_CHANGE)
    await exchange.answer_json({})


async def memory_status(exchange: Exchange) -> None:
    """GET /v2/systemsharedmemory/status and its kin: an array."""
    kind = _memory_kind(exchange)
    request = getattr(pb, f"{kind}StatusRequest")(name=exchange.path("region"))
    answer = await exchange.unary(f"{kind}Status", request, getattr(pb, f"{kind}StatusResponse"))
    regions = sorted(answer.regions.items())
    await exchange.answer_json([message_to_json(region) for _, region in regions])


async def memory_register(exchange: Exchange) -> None:
    """POST /v2/systemsharedmemory/region/R/register and its kin."""
    kind = _memory_kind(exchange)
    request = _region(kind, exchange.path("region"), await exchange.json())
    answer = getattr(pb, f"{kind}RegisterResponse")
    await exchange.unary(f"{kind}Register", request, answer, **_CHANGE)
    await exchange.answer_json({})


def _region(kind: str, name: str, given: dict[str, Any]) -> Any:
    request = getattr(pb, f"{kind}RegisterRequest")(name=name)
    request.byte_size = _unsigned(given, "byte_size", required=True)
    if kind == "SystemSharedMemory":
        request.key = take(given, "key", str, "", "the request")
        request.offset = _unsigned(given, "offset")
    else:
        handle = take(given, "raw_handle", dict, {}, "the request")
        request.raw_handle = _from_base64(take(handle, "b64", str, "", "'raw_handle'"), "b64")
        request.device_id = take(given, "device_id", int, 0, "the request")
    return request


async def memory_unregister(exchange: Exchange) -> None:
    """POST /v2/systemsharedmemory[/region/R]/unregister and its kin."""
    kind = _memory_kind(exchange)
    await exchange.body()
    request = getattr(pb, f"{kind}UnregisterRequest")(name=exchange.path("region"))
    answer = getattr(pb, f"{kind}UnregisterResponse")
    await exchange.unary(f"{kind}Unregister", request, answer, **_CHANGE)
    await exchange.answer_json({})


async def trace_settings(exchange: Exchange) -> None:
    """GET and POST /v2/trace/setting and /v2/models/M/trace/setting."""
    request = pb.TraceSettingRequest(model_name=exchange.path("model"))
    details = {}
    if exchange.method == "POST":
        details = _CHANGE
        _set_trace_settings(request, await exchange.json())
    answer = await exchange.unary("TraceSetting", request, pb.TraceSettingResponse, **details)
    found: dict[str, Any] = {}
    for name, setting in answer.settings.items():
        values = list(setting.value)
        found[name] = values if name == "trace_level" or len(values) != 1 else values[0]
    await exchange.answer_json(found)


def _set_trace_settings(request: Any, given: dict[str, Any]) -> None:
    for name, value in given.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not set(map(type, values)) <= {str, int}:
            raise HttpError(400, f"trace setting '{name[:64]}': expected strings")
        request.settings[name].value.extend(map(str, values))


async def log_settings(exchange: Exchange) -> None:
    """GET and POST /v2/logging."""
    request = pb.LogSettingsRequest()
    details = {}
    if exchange.method == "POST":
        details = _CHANGE
        for name, value in (await exchange.json()).items():
            _set_log_setting(request.settings[name], name, value)
    answer = await exchange.unary("LogSettings", request, pb.LogSettingsResponse, **details)
    found = {}
    for name, setting in answer.settings.items():
        found[name] = getattr(setting, setting.WhichOneof("parameter_choice") or "string_param")
    await exchange.answer_json(found)


_CHANGE: dict[str, Any] = {"may_repeat": False, "changes_server": True}


def _set_log_setting(target: Any, name: str, value: object) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int) and 0 <= value <= _UINT32_MAX:
        target.uint32_param = value
    elif isinstance(value, str):
        target.string_param = value
    else:
        what = "a boolean, a string or a whole number of 32 bits"
        raise HttpError(400, f"log setting '{name[:64]}': expected {what}")


async def _read_repository_parameters(exchange: Exchange, request: Any) -> None:
    given = await exchange.json()
    for key, value in take(given, "parameters", dict, {}, "the request").items():
        if key.startswith("file:") and isinstance(value, str):
            request.parameters[key].bytes_param = _from_base64(value, key)
        elif isinstance(value, bool):
            request.parameters[key].bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            request.parameters[key].int64_param = value
        elif isinstance(value, str):
            request.parameters[key].string_param = value
        else:
            raise HttpError(
                400, f"parameter '{key[:64]}': expected a string, a boolean or a whole number"
            )


def _memory_kind(exchange: Exchange) -> str:
    return MEMORY_KINDS[exchange.path("kind")]


def _unsigned(given: dict[str, Any], key: str, *, required: bool = False) -> int:
    value: int | None = take(given, key, int, None if required else 0, "the request")
    if value is None or value < 0:
        raise HttpError(400, f"expected '{key}' of the request to be a whole number of 0 or more")
    return value


def _from_base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise HttpError(400, f"'{what[:64]}' is not base64") from None
