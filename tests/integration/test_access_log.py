"""`--access-log`: one line for each call and HTTP request, on every way in, and nothing secret."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.cli import finished, started
from tests.support.fixture_models import write_blocked, write_simple
from tests.support.http import ask, post
from tests.support.http_requests import simple_json
from tests.support.raw_grpc import raw_client
from tests.support.requests import identity_request, simple_request
from tests.support.run_server import ServerProcess, serve_process

from penstock_client import AsyncClient

SIMPLE = "/v2/models/simple/infer"
RPC = "/inference.GRPCInferenceService/"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    write_blocked(tmp_path / "models", tmp_path / "gate")
    return tmp_path / "models"


@asynccontextmanager
async def logging_server(repository: Path, *flags: str) -> AsyncIterator[ServerProcess]:
    """A server of lines in JSON; `lines` of it are all there are once it has ended."""
    form = ["--log-format", "json", "--access-log", "true", "--shutdown-grace-secs", "0"]
    async with serve_process(repository, *form, *flags) as server:
        yield server


async def lines_of(server: ServerProcess) -> list[dict[str, Any]]:
    """Ends the server; its access log."""
    server.process.terminate()
    assert await server.finish() == 0
    found = [json.loads(line) for line in server.lines]
    return [each for each in found if each["logger"] == "penstock.access"]


async def until_in_flight(server: ServerProcess, count: int) -> None:
    """Returns once so many requests are with the server."""
    port = int(server.addresses["metrics"].rpartition(":")[2])
    line = f"\npenstock_inflight_requests {count}\n"
    async with asyncio.timeout(30):
        while line not in (await ask(port, "/metrics")).body.decode():
            pass


def about(lines: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [each for each in lines if each["method"] == method]


async def test_calls_over_grpc_are_a_line_each(repository: Path, transport: str) -> None:
    request = simple_request()
    request.id = "r-1"
    async with logging_server(repository, "--transport", transport) as server:
        key = (("authorization", "Bearer SECRET"), ("x-request-id", "x-2"))
        async with AsyncClient(server.addresses["gRPC"]) as client:
            assert await client.model_ready("simple")
        async with raw_client(server.addresses["gRPC"]) as raw:
            await raw.unary("ModelInfer", request.SerializeToString(), metadata=key)
            request.model_name, request.id = "nobody", ""
            with pytest.raises(Exception, match="unknown model"):
                await raw.unary("ModelInfer", request.SerializeToString(), metadata=key)
        lines = await lines_of(server)
    answered, failed = about(lines, f"{RPC}ModelInfer")
    assert answered["status"] == "OK" and answered["message"] == "call"
    assert answered["model"] == "simple" and answered["request_id"] == "r-1"
    assert answered["received_bytes"] > 128 and answered["sent_bytes"] > 128
    assert answered["duration_ms"] > 0 and answered["peer"].startswith("ipv4:127.0.0.1:")
    assert failed["status"] == "NOT_FOUND" and failed["model"] == "nobody"
    assert failed["request_id"] == "x-2"
    (ready,) = about(lines, f"{RPC}ModelReady")
    assert ready["model"] == "simple" and ready["status"] == "OK"
    assert "SECRET" not in json.dumps(lines) + "".join(server.lines)


async def test_stream_is_one_line_when_it_is_over(repository: Path, transport: str) -> None:
    gate = repository.parent / "gate"
    request = simple_request()
    request.id = "s-1"
    message = request.SerializeToString()
    async with logging_server(repository, "--transport", transport) as server:
        async with raw_client(server.addresses["gRPC"]) as raw:
            call = raw.stream()
            for _ in range(3):
                await call.write(message)
                await call.read()
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            left = raw.stream()
            await left.write(message)
            await left.read()
            await left.write(identity_request([1], model="blocked").SerializeToString())
            await until_in_flight(server, 1)
            left.cancel()
            gate.touch()  # a batch that runs goes on to its end
            await until_in_flight(server, 0)
            watch = raw.channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"")
            await watch.read()
            watch.cancel()
            refused = raw.channel.unary_unary("/no.Service/Method", None, None)
            with pytest.raises(grpc.aio.AioRpcError):
                await refused(b"")
        lines = await lines_of(server)
    whole, broken = about(lines, f"{RPC}ModelStreamInfer")
    assert whole["status"] == "OK" and broken["status"] == "CANCELLED"
    for each in (whole, broken):
        assert (each["model"], each["request_id"]) == ("simple", "s-1")
    assert whole["received_bytes"] >= 3 * len(message) > broken["received_bytes"] - 5
    assert whole["sent_bytes"] > 3 * 128
    (watched,) = about(lines, "/grpc.health.v1.Health/Watch")
    assert watched["status"] == "CANCELLED" and watched["sent_bytes"] > 0
    (unknown,) = about(lines, "/no.Service/Method")
    assert unknown["status"] == "UNIMPLEMENTED"


@pytest.mark.any_transport
async def test_requests_over_http_are_a_line_each(repository: Path) -> None:
    headers = {"authorization": "Bearer SECRET", "x-request-id": "x-3"}
    async with logging_server(repository) as server:
        port = int(server.addresses["HTTP"].rpartition(":")[2])
        await post(port, SIMPLE, {**simple_json(), "id": "h-1"}, headers)
        await post(port, f"{SIMPLE}?token=SECRET", {}, headers)
        await ask(port, "/v2/health/ready")
        await ask(port, "/nowhere")
        lines = await lines_of(server)
    answered, refused = about(lines, f"POST {SIMPLE}")
    assert answered["status"] == "200" and answered["request_id"] == "h-1"
    assert answered["model"] == "simple" and answered["sent_bytes"] > 100
    assert answered["received_bytes"] > 100 and answered["peer"].startswith("ipv4:127.0.0.1:")
    assert refused["status"] == "400" and refused["request_id"] == "x-3"
    assert [each["status"] for each in about(lines, "GET /v2/health/ready")] == ["200"]
    assert [each["status"] for each in about(lines, "GET /nowhere")] == ["404"]
    assert "SECRET" not in "".join(server.lines)


@pytest.mark.any_transport
async def test_gateway_of_a_fleet_logs_its_requests(repository: Path) -> None:
    flags = ["--http-port", "0", "--log-format", "json", "--access-log", "true"]
    async with serve_process(repository, "--shutdown-grace-secs", "0") as server:
        upstream = ["--upstream", server.addresses["gRPC"], "--shutdown-grace-secs", "0"]
        async with started("gateway", *upstream, *flags) as gateway:
            assert gateway.stderr is not None
            while "is ready:" not in (line := (await gateway.stderr.readline()).decode()):
                assert line
            port = int(line.partition("HTTP ")[2].partition('"')[0].rpartition(":")[2])
            await post(port, SIMPLE, {**simple_json(), "id": "g-1"})
            gateway.terminate()
            end = await finished(gateway)
        lines = [json.loads(each) for each in end.err.splitlines()]
    (answered,) = [each for each in lines if each["logger"] == "penstock.access"]
    assert answered["method"] == f"POST {SIMPLE}" and answered["request_id"] == "g-1"
    assert answered["model"] == "simple" and answered["status"] == "200"


@pytest.mark.any_transport
async def test_lines_stop_and_begin_with_the_level_info(repository: Path) -> None:
    async with logging_server(repository) as server:
        port = int(server.addresses["HTTP"].rpartition(":")[2])
        await post(port, "/v2/logging", {"log_info": False})
        await post(port, SIMPLE, simple_json())
        await post(port, "/v2/logging", {"log_info": True})
        await post(port, "/v2/models/simple/infer", {**simple_json(), "id": "again"})
        lines = await lines_of(server)
    assert [each["request_id"] for each in about(lines, f"POST {SIMPLE}")] == ["again"]


@pytest.mark.any_transport
async def test_without_the_flag_no_call_is_logged(repository: Path) -> None:
    async with serve_process(repository, "--shutdown-grace-secs", "0") as server:
        port = int(server.addresses["HTTP"].rpartition(":")[2])
        await post(port, SIMPLE, simple_json())
        server.process.terminate()
        assert await server.finish() == 0
    assert not [line for line in server.lines if "penstock.access" in line]


@pytest.mark.any_transport
async def test_lines_about_a_model_name_it_in_a_field(repository: Path) -> None:
    (repository / "broken" / "1").mkdir(parents=True)
    async with logging_server(repository, "--exit-on-error", "false") as server:
        server.process.terminate()
        assert await server.finish() == 0
    found = [json.loads(line) for line in server.lines]
    serves = [each for each in found if "serves version" in each["message"]]
    assert {(each["model"], each["version"]) for each in serves} >= {("simple", "1")}
    (failed,) = [each for each in found if each["level"] == "ERROR" and "broken" in each["message"]]
    assert failed["model"] == "broken"
