"""`penstock gateway` in front of real servers: they come, go, drain and die."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.cli import finished, penstock, started
from tests.support.fixture_models import write_blocked, write_repeat, write_simple
from tests.support.http import HttpReply, ask, post
from tests.support.http_requests import identity_json, outputs, simple_json
from tests.support.run_server import RunningServer, run_server, serve_process, server_config

from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway

SIMPLE = "/v2/models/simple/infer"


@asynccontextmanager
async def fleet(*upstreams: str, **settings: object) -> AsyncIterator[FleetGateway]:
    """A gateway in this process."""
    values = {"http_port": 0, "upstream_probe_secs": 0.02, **settings}
    gateway = FleetGateway(GatewayConfig(upstream=upstreams, **values))  # type: ignore[arg-type]
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def until_ready(gateway: FleetGateway, count: int) -> None:
    async with asyncio.timeout(30):
        while sum(each.is_ready for each in gateway.pool.replicas) != count:
            await ask(gateway.http.port, "/v2/health/live")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    write_repeat(tmp_path / "models")
    return tmp_path / "models"


async def test_servers_behind_one_gateway_share_the_requests(repository: Path) -> None:
    config = server_config(repository)
    async with run_server(config) as one, run_server(config) as two:
        async with fleet(one.grpc_address, two.grpc_address) as gateway:
            port = gateway.http.port
            assert (await ask(port, "/v2/health/ready")).json == {"ready": True}
            replies = await asyncio.gather(*(post(port, SIMPLE, simple_json(n)) for n in range(64)))
            found = [outputs(each)["OUTPUT0"][0] for each in replies]
            assert found == list(range(64))
            counts = [each.app.core.infer_stats()["accepted"] for each in (one, two)]
            assert sum(counts) == 64 and min(counts) > 0
            stream = "/v2/models/repeat_int32/generate_stream"
            reply = await post(port, stream, {"IN": [4, 5], "DELAY": [0, 0], "WAIT": 0})
            assert reply.body.count(b"data: ") == 2


@pytest.mark.any_transport
async def test_requests_are_held_until_the_first_server_is_up(repository: Path) -> None:
    async with fleet(f"unix:{repository}/grpc.sock") as gateway:
        port = gateway.http.port
        assert (await ask(port, "/v2/health/ready")).status == 400
        held = [asyncio.create_task(post(port, SIMPLE, simple_json())) for _ in range(10)]
        async with asyncio.timeout(30):
            while gateway.pool.waiting < 10:
                await ask(port, "/v2/health/live")
        config = server_config(repository, grpc_address=f"unix:{repository}/grpc.sock")
        async with run_server(config):
            assert [reply.status for reply in await asyncio.gather(*held)] == [200] * 10


@pytest.mark.any_transport
async def test_all_replicas_down_is_503_with_a_time_to_come_back(repository: Path) -> None:
    async with fleet(f"unix:{repository}/nobody", max_waiting_secs=0.1) as gateway:
        reply = await post(gateway.http.port, SIMPLE, simple_json())
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json == {"error": "no server became ready within 0.1 s"}
    async with fleet(f"unix:{repository}/nobody", max_waiting=0) as gateway:
        reply = await post(gateway.http.port, SIMPLE, simple_json())
        assert (reply.status, reply.json["error"]) == (503, "0 requests wait for a server already")


async def test_rolling_restart_fails_no_request(repository: Path) -> None:
    sockets = [repository.parent / f"{number}.sock" for number in range(3)]
    configs = [server_config(repository, grpc_address=f"unix:{each}") for each in sockets]
    async with fleet(*(f"unix:{each}" for each in sockets)) as gateway:
        ended = asyncio.Event()
        replies: list[HttpReply] = []

        async def load() -> None:
            while not ended.is_set():
                replies.append(await post(gateway.http.port, SIMPLE, simple_json()))

        servers = [run_server(config) for config in configs]
        for each in servers:
            await each.__aenter__()
        await until_ready(gateway, 3)
        loads = [asyncio.create_task(load()) for _ in range(8)]
        for at, config in enumerate(configs):
            await servers[at].__aexit__(None, None, None)
            servers[at] = run_server(config)
            await servers[at].__aenter__()
            await until_ready(gateway, 3)
        ended.set()
        await asyncio.gather(*loads)
        for each in servers:
            await each.__aexit__(None, None, None)
    assert len(replies) > 50
    assert [each for each in replies if each.status != 200] == []


async def test_server_that_dies_in_a_request_is_an_error_and_no_second_run(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate")
    write_repeat(tmp_path / "models")
    async with serve_process(tmp_path / "models") as server:
        async with fleet(server.addresses["gRPC"], max_waiting_secs=0.1) as gateway:
            port = gateway.http.port
            unary = asyncio.create_task(post(port, "/v2/models/blocked/infer", identity_json(1)))
            stream = asyncio.create_task(
                post(
                    port,
                    "/v2/models/repeat_int32/generate_stream",
                    {"IN": [1, 2], "DELAY": [0, 4_000_000], "WAIT": 0},
                )
            )
            (replica,) = gateway.pool.replicas
            async with asyncio.timeout(30):
                while replica.outstanding < 2:
                    await ask(port, "/v2/health/live")
            metrics = int(server.addresses["metrics"].rsplit(":", 1)[1])
            async with asyncio.timeout(30):
                while b"penstock_inflight_requests 2" not in (await ask(metrics, "/metrics")).body:
                    pass
            server.process.kill()
            broken = await unary
            assert broken.status == 503 and "error" in broken.json
            events = (await stream).body
            assert b'"error"' in events
            later = await post(port, "/v2/models/blocked/infer", identity_json(1))
            assert later.status == 503


async def test_client_that_leaves_cancels_its_call_at_the_server(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate")
    async with run_server(server_config(tmp_path / "models")) as server:
        async with fleet(server.grpc_address) as gateway:
            body = json.dumps(identity_json(1)).encode()
            head = "POST /v2/models/blocked/infer HTTP/1.1\r\nHost: t\r\n"
            writers = []
            for count in (1, 2):  # one runs, one waits
                _, writer = await asyncio.open_connection("127.0.0.1", gateway.http.port)
                writers.append(writer)
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await in_flight(server, gateway, count)
            writers[1].transport.abort()
            await in_flight(server, gateway, 1)
            (version,) = server.app.models.statistics("blocked")
            assert version.counters["cancelled"]["queued"] == 1
            writers[0].transport.abort()
            (tmp_path / "gate").touch()
            await in_flight(server, gateway, 0)


async def in_flight(server: RunningServer, gateway: FleetGateway, count: int) -> None:
    async with asyncio.timeout(30):
        while server.app.core.infer_stats()["inflight"] != count:
            await ask(gateway.http.port, "/v2/health/live")


@pytest.mark.any_transport
async def test_server_that_does_not_answer_in_time_is_504(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate")
    async with run_server(server_config(tmp_path / "models")) as server:
        async with fleet(server.grpc_address, upstream_timeout_secs=0.2) as gateway:
            port = gateway.http.port
            reply = await post(port, "/v2/models/blocked/infer", identity_json(1))
            assert reply.status == 504
            (tmp_path / "gate").touch()


@pytest.mark.any_transport
async def test_change_of_a_server_reaches_every_replica(repository: Path) -> None:
    config = server_config(repository, model_control_mode="explicit", load_model=("simple",))
    async with run_server(config) as one, run_server(config) as two:
        async with fleet(one.grpc_address, two.grpc_address) as gateway:
            port = gateway.http.port
            path = "/v2/repository/models/simple/unload"
            assert (await post(port, path)).status == 200
            assert not one.app.models.ready("simple") and not two.app.models.ready("simple")


@pytest.mark.any_transport
async def test_command_serves_drains_and_says_what_is_wrong(repository: Path) -> None:
    socket = f"unix:{repository}/grpc.sock"
    async with run_server(server_config(repository, grpc_address=socket)):
        flags = ["--upstream", socket, "--http-port", "0", "--shutdown-grace-secs", "0"]
        async with started("gateway", *flags) as process:
            assert process.stderr is not None
            while b"gateway is ready: HTTP " not in (line := await process.stderr.readline()):
                assert line
            port = int(line.decode().rsplit(":", 1)[1])
            assert (await post(port, SIMPLE, simple_json())).status == 200
            process.send_signal(signal.SIGTERM)
            end = await finished(process)
            assert end.code == 0 and "stopped" in end.err


@pytest.mark.any_transport
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--upstream: at least one server is needed"),
        (["--upstream", "nowhere"], "expected HOST:PORT or unix:PATH, got 'nowhere'"),
        (["--upstream", "a:1,a:1"], "a server is named twice"),
        (["--upstream", "a:1", "--http-forward-header", "grpc-timeout"], "a meaning of its own"),
        (["--upstream", "a:1", "--upstream-root-cert", "x"], "needs --upstream-use-ssl=true"),
        (["--upstream", "a:1", "--http-port", "70000"], "expected at most 65535"),
    ],
)
async def test_wrong_settings_are_told(flags: list[str], words: str) -> None:
    end = await penstock("gateway", *flags)
    assert end.code == 2
    assert words in end.err
