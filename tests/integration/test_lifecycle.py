"""The server's life: start, readiness, drain, signals; the promises of server/README.md on them."""

import asyncio
import json
import re
import signal
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.fixture_models import write_blocked, write_identity, write_model, write_simple
from tests.support.http import ask
from tests.support.raw_grpc import raw_client
from tests.support.requests import identity_request, simple_request, sums
from tests.support.run_server import (
    ServerProcess,
    run_server,
    serve_process,
    server_config,
    start_process,
)
from tritonclient.grpc import service_pb2 as wire

from penstock.errors import StartupError

SIMPLE = simple_request().SerializeToString()


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def stuck(model: str = "blocked") -> bytes:
    data: bytes = identity_request([1.0], model=model).SerializeToString()
    return data


async def until_running(server: ServerProcess) -> None:
    """Returns once the metrics show a request in a running batch."""
    running = re.compile(rb"^penstock_running_requests{.*} 1$", re.MULTILINE)
    port = port_of(server.addresses["metrics"])
    while not running.search((await ask(port, "/metrics")).body):
        pass


async def test_ready_server_answers_everywhere(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        reply = wire.ModelInferResponse.FromString(await client.unary("ModelInfer", SIMPLE))
        assert sums(reply) == tuple(range(1, 17))
        assert (await ask(server.http_port, "/v2/health/ready")).status == 200
        assert (await ask(server.metrics_port, "/metrics")).status == 200
        assert server.app.lifecycle.state.value == "ready"
    assert server.app.lifecycle.state.value == "stopped"


async def test_two_servers_live_in_one_process(tmp_path: Path) -> None:
    write_simple(tmp_path)
    config = server_config(tmp_path)
    async with run_server(config) as first, run_server(config) as second:
        for server in (first, second):
            async with server.client() as client:
                assert await client.unary("ModelInfer", SIMPLE)


async def test_ports_that_are_switched_off_are_not_taken(tmp_path: Path) -> None:
    write_simple(tmp_path)
    config = server_config(tmp_path, allow_http=False, allow_metrics=False)
    async with run_server(config) as server:
        assert (server.app.http, server.app.metrics) == (None, None)


async def test_failed_model_stops_the_start(tmp_path: Path) -> None:
    write_simple(tmp_path)
    write_model(tmp_path, "broken", kind="fail_load", message="no such luck")
    with pytest.raises(StartupError, match="'broken'.*no such luck"):
        async with run_server(server_config(tmp_path)):
            pass


async def test_failed_model_leaves_the_server_unready_under_strict_readiness(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path)
    write_model(tmp_path, "broken", kind="fail_load")
    config = server_config(tmp_path, exit_on_error=False)
    async with run_server(config) as server, server.client() as client:
        assert (await ask(server.http_port, "/v2/health/ready")).status == 400
        assert await client.unary("ModelInfer", SIMPLE)  # what did load is served


async def test_log_says_what_keeps_the_server_unready(tmp_path: Path) -> None:
    write_model(tmp_path, "broken", kind="fail_load")
    async with serve_process(tmp_path, "--exit-on-error=false") as server:
        assert "WARNING" in await server.next_line("a model failed, and readiness is strict")


async def test_repository_without_models_is_served_with_a_warning(tmp_path: Path) -> None:
    async with serve_process(tmp_path) as server:
        assert any(f"no model found in '{tmp_path}'" in line for line in server.lines)


async def test_failed_model_does_not_matter_without_strict_readiness(tmp_path: Path) -> None:
    write_simple(tmp_path)
    write_model(tmp_path, "broken", kind="fail_load")
    config = server_config(tmp_path, exit_on_error=False, strict_readiness=False)
    async with run_server(config) as server:
        assert (await ask(server.http_port, "/v2/health/ready")).status == 200


async def test_repository_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="nowhere"):
        async with run_server(server_config(tmp_path / "nowhere")):
            pass


async def test_sigterm_serves_on_unready_for_the_grace_time_then_ends_well(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, "--shutdown-grace-secs", "1") as server:
        async with raw_client(server.addresses["gRPC"]) as client:
            watch = health_pb2_grpc.HealthStub(client.channel).Watch(
                health_pb2.HealthCheckRequest()
            )
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            server.process.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await ask(port_of(server.addresses["HTTP"]), "/v2/health/ready")).status == 400
            assert await client.unary("ModelInfer", SIMPLE)
            with pytest.raises(grpc.aio.AioRpcError):
                await watch.read()
        assert await server.finish() == 0
    assert "stopped" in server.lines[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_request_in_flight_is_finished_and_new_ones_are_refused(
    tmp_path: Path, number: signal.Signals
) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    flags = ["--shutdown-grace-secs", "0"]
    async with serve_process(tmp_path / "models", *flags) as server:
        async with raw_client(server.addresses["gRPC"]) as client:
            call = client.unary("ModelInfer", stuck())
            await until_running(server)
            server.process.send_signal(number)
            await server.next_line("new requests are refused")
            async with raw_client(server.addresses["gRPC"]) as late:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await late.unary("ModelInfer", stuck())
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            gate.touch()
            assert wire.ModelInferResponse.FromString(await call).model_name == "blocked"
        assert await server.finish() == 0


async def test_traffic_at_the_stop_is_answered_or_unavailable(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        answered = 0

        async def until_refused() -> grpc.StatusCode:
            nonlocal answered
            while True:
                try:
                    await client.unary("ModelInfer", SIMPLE)
                    answered += 1
                except grpc.aio.AioRpcError as error:
                    return error.code()

        callers = [asyncio.create_task(until_refused()) for _ in range(32)]
        while answered < 100:
            assert not any(caller.done() for caller in callers)
            await client.unary("ServerLive")
        await server.app.stop()
        assert set(await asyncio.gather(*callers)) == {grpc.StatusCode.UNAVAILABLE}
        assert server.app.core.infer_stats()["completed"]["OK"] == answered


async def test_stop_is_bounded_in_time(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "never")
    flags = ["--shutdown-grace-secs", "0", "--exit-timeout-secs", "0.2"]
    async with serve_process(tmp_path / "models", *flags) as server:
        async with raw_client(server.addresses["gRPC"]) as client:
            call = client.unary("ModelInfer", stuck())
            await until_running(server)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() in (
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            )
        assert await server.finish() == 1  # the model never ended
    assert any("a model still runs" in line for line in server.lines)


async def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serve_process(tmp_path, "--shutdown-grace-secs", "3600") as server:
        server.process.send_signal(signal.SIGTERM)
        await server.next_line("serving on for 3600 s")
        server.process.send_signal(signal.SIGTERM)
        assert await server.finish() == -signal.SIGTERM


async def test_signal_during_the_start_ends_it(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate", config=WARM_UP)
    async with start_process(tmp_path / "models", "--log-level", "debug") as server:
        await server.next_line("loading models")
        server.process.send_signal(signal.SIGTERM)
        await server.next_line("interrupted while starting")
        (tmp_path / "gate").touch()
        assert await server.finish() == 0


async def test_stop_during_a_load_is_bounded_in_time(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "never", config=WARM_UP)
    mode = ["--model-control-mode", "explicit"]
    times = ["--shutdown-grace-secs", "0", "--exit-timeout-secs", "0.2"]
    async with serve_process(tmp_path / "models", *mode, *times) as server:
        async with raw_client(server.addresses["gRPC"]) as client:
            load = wire.RepositoryModelLoadRequest(model_name="blocked").SerializeToString()
            call = client.unary("RepositoryModelLoad", load)
            while b"LOADING" not in await client.unary("RepositoryIndex"):
                assert not call.done()
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert await server.finish() == 1  # the load never ended
    assert any("one is still being loaded" in line for line in server.lines)


WARM_UP = """model_warmup [{ name: "w" batch_size: 1 inputs {
  key: "INPUT0" value { data_type: TYPE_FP32 dims: [1] zero_data: true } } }]"""


async def test_live_but_not_ready_while_models_are_loading(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate, config=WARM_UP)
    async with start_process(tmp_path / "models") as server:
        line = await server.next_line("loading models")
        http = port_of(line.split("HTTP ")[1].split(",")[0])
        grpc_address = line.split("gRPC ")[1].split(",")[0]
        assert (await ask(http, "/v2/health/live")).status == 200
        assert (await ask(http, "/v2/health/ready")).status == 400
        async with raw_client(grpc_address) as client:
            assert await client.unary("ServerLive") == b"\x08\x01"
            assert await client.unary("ServerReady") == b""
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.unary("ModelInfer", stuck())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            gate.touch()
            await server.next_line("is ready")
            assert await client.unary("ServerReady") == b"\x08\x01"


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port", "--metrics-port"])
async def test_taken_port_is_one_line_and_an_exit_code(tmp_path: Path, flag: str) -> None:
    write_simple(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        async with start_process(tmp_path, flag, str(port)) as server:
            assert await server.finish() == 1
    assert len(server.lines) == 1, server.lines
    assert f"cannot listen on 127.0.0.1:{port}" in server.lines[0]
    assert "Address already in use" in server.lines[0]


async def test_json_log_is_one_object_per_line_from_both_languages(tmp_path: Path) -> None:
    write_identity(tmp_path)
    write_model(tmp_path, "thrower", kind="throw", message='a "quoted" word')
    flags = ["--log-format", "json", "--shutdown-grace-secs", "0"]
    async with serve_process(tmp_path, *flags) as server:
        async with raw_client(server.addresses["gRPC"]) as client:
            with pytest.raises(grpc.aio.AioRpcError):
                await client.unary("ModelInfer", stuck("thrower"))
        server.process.send_signal(signal.SIGTERM)
        await server.finish()
    found = [json.loads(line) for line in server.lines]
    assert all({"time", "level", "logger", "message"} <= set(entry) for entry in found)
    (thrown,) = [entry for entry in found if 'a "quoted" word' in entry["message"]]
    assert (thrown["model"], thrown["version"]) == ("thrower", "1")
    assert 'a "quoted" word' in {entry["message"] for entry in found}
    assert any("is ready" in entry["message"] for entry in found)
