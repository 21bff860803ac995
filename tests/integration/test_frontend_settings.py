"""TraceSetting and LogSettings on the wire, bytes of every kind, with fakes behind the frontend."""

from collections.abc import AsyncIterator, Mapping

import grpc
import pytest
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.raw_grpc import RawClient, raw_client
from tritonclient.grpc import service_pb2 as wire

TRACE = {
    "trace_file": [""],
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_mode": ["triton"],
}


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serve_frontend() as started:
        yield started


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[RawClient]:
    async with raw_client(server.address) as connected:
        yield connected


async def trace(
    client: RawClient, settings: Mapping[str, list[str]] | None = None, model: str = ""
) -> dict[str, list[str]]:
    request = wire.TraceSettingRequest(model_name=model)
    for name, values in (settings or {}).items():
        request.settings[name].value.extend(values)
    data = await client.unary("TraceSetting", request.SerializeToString())
    reply = wire.TraceSettingResponse.FromString(data)
    return {name: list(value.value) for name, value in reply.settings.items()}


@pytest.mark.parametrize("model", ["", "m"])
async def test_trace_settings_are_those_of_a_server_that_does_not_trace(
    client: RawClient, model: str
) -> None:
    assert await trace(client, model=model) == TRACE


async def test_trace_settings_that_are_already_so_may_be_set(client: RawClient) -> None:
    assert await trace(client, TRACE) == TRACE
    assert await trace(client, {name: [] for name in TRACE}) == TRACE  # back to the default
    assert await trace(client, {"trace_level": ["OFF"]}, model="m") == TRACE


@pytest.mark.parametrize(
    ("settings", "model", "code", "text"),
    [
        ({"trace_level": ["TIMESTAMPS"]}, "", "UNIMPLEMENTED", "'trace_level' can not be changed"),
        ({"trace_rate": ["1"]}, "m", "UNIMPLEMENTED", "expected 1000, got 1"),
        ({"trace_count": ["x", "y"]}, "", "UNIMPLEMENTED", "expected -1, got x, y"),
        ({"trace_mode": ["opentelemetry"]}, "", "UNIMPLEMENTED", "'trace_mode' can not be changed"),
        (
            {"trace_file": ["/tmp/x"]},
            "",
            "UNIMPLEMENTED",
            "trace file location can not be updated through network protocol",
        ),
        ({"trace_colour": ["red"]}, "", "INVALID_ARGUMENT", "unknown trace setting 'trace_colour'"),
        ({}, "nobody", "NOT_FOUND", "Request for unknown model : nobody"),
    ],
)
async def test_trace_setting_that_would_change_is_refused_by_name(
    client: RawClient, settings: Mapping[str, list[str]], model: str, code: str, text: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await trace(client, settings, model)
    assert caught.value.code().name == code
    assert text in (caught.value.details() or "")


async def test_log_setting_without_a_value_is_refused(
    server: FakeServer, client: RawClient
) -> None:
    request = wire.LogSettingsRequest()
    request.settings["log_error"].SetInParent()
    request.settings["log_info"].bool_param = False
    with pytest.raises(grpc.aio.AioRpcError, match="expect boolean for 'log_error'") as caught:
        await client.unary("LogSettings", request.SerializeToString())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert server.logs_applied == []


@pytest.mark.parametrize("rpc", ["TraceSetting", "LogSettings"])
async def test_garbage_is_an_invalid_argument(client: RawClient, rpc: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="is not a valid") as caught:
        await client.unary(rpc, b"\xff\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
