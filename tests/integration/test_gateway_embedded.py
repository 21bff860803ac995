"""HTTP in front of a server's own models: they answer, stop and fail as over gRPC."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.fixture_models import (
    write_blocked,
    write_model,
    write_repeat,
    write_simple,
    write_square,
)
from tests.support.http import HttpReply, ask, post
from tests.support.http_requests import identity_json, outputs, simple_json
from tests.support.run_server import RunningServer, run_server, server_config

pytestmark = pytest.mark.any_transport

REPEAT = {"IN": [4, 5, 6], "DELAY": [0, 0, 0], "WAIT": 0}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    write_simple(tmp_path / "models")
    write_repeat(tmp_path / "models")
    write_square(tmp_path / "models")
    write_blocked(tmp_path / "models", tmp_path / "gate")
    write_model(tmp_path / "models", "broken", kind="fail", message="no such luck")
    async with run_server(server_config(tmp_path / "models")) as running:
        yield running
        (tmp_path / "gate").touch()


def events(reply: HttpReply) -> list[dict[str, object]]:
    found = re.findall(rb"^data: (.*)$", reply.body, re.MULTILINE)
    return [json.loads(each) for each in found]


async def running(server: RunningServer, count: int) -> None:
    """Returns once so many requests are in flight: the core has no event for it."""
    async with asyncio.timeout(30):
        while server.app.core.infer_stats()["inflight"] != count:
            await ask(server.http_port, "/v2/health/live")


async def test_model_answers_over_http_as_over_grpc(server: RunningServer) -> None:
    reply = await post(server.http_port, "/v2/models/simple/infer", simple_json())
    assert outputs(reply)["OUTPUT0"] == list(range(1, 17))
    assert reply.json["model_version"] == "1"
    assert "parameters" not in reply.json["outputs"][0]
    by_version = "/v2/models/simple/versions/1/infer"
    assert (await post(server.http_port, by_version, simple_json())).status == 200


async def test_words_of_the_core_come_through(server: RunningServer) -> None:
    cases = [
        ("nobody", simple_json(), 404, "Request for unknown model: 'nobody' is not found"),
        ("simple", {"inputs": []}, 400, "expected 2 inputs but got 0 inputs for model 'simple'"),
        ("broken", identity_json(1), 500, "no such luck"),
        (
            "repeat_int32",
            {"inputs": []},
            501,
            "HTTP end point doesn't support models with decoupled",
        ),
    ]
    for model, body, status, words in cases:
        reply = await post(server.http_port, f"/v2/models/{model}/infer", body)
        assert (reply.status, words in reply.json["error"]) == (status, True), reply.body


async def test_decoupled_model_streams_events(server: RunningServer) -> None:
    path = "/v2/models/repeat_int32/generate_stream"
    reply = await post(server.http_port, path, REPEAT)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [each["OUT"] for each in events(reply)] == [4, 5, 6]
    none = await post(server.http_port, path, {"IN": [], "DELAY": [], "WAIT": 0})
    assert (none.status, events(none)) == (200, [])


async def test_generate_wants_one_response(server: RunningServer) -> None:
    path = "/v2/models/square_int32/generate"
    one = await post(server.http_port, path, {"IN": 1})
    assert (one.status, one.json["OUT"]) == (200, 1)
    many = await post(server.http_port, path, {"IN": 3})
    assert "exactly 1 response" in many.json["error"]
    unknown = await post(server.http_port, "/v2/models/nobody/generate", {})
    assert unknown.status == 404


async def test_client_that_leaves_takes_its_request_out_of_the_queue(server: RunningServer) -> None:
    body = json.dumps(identity_json(1)).encode()
    head = (
        f"POST /v2/models/blocked/infer HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writers = []
    for count in (1, 2):  # one runs, one waits
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        writers.append(writer)
        writer.write(head.encode() + body)
        await running(server, count)
    writers[1].transport.abort()
    await running(server, 1)
    (version,) = server.app.models.statistics("blocked")
    assert version.counters["cancelled"]["queued"] == 1
    writers[0].transport.abort()


async def test_client_that_leaves_ends_its_stream(server: RunningServer) -> None:
    body = json.dumps({"IN": [1, 2], "DELAY": [0, 4_000_000], "WAIT": 0}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    path = "/v2/models/repeat_int32/generate_stream"
    writer.write(f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    async with asyncio.timeout(30):
        await reader.readuntil(b"data: ")
    await running(server, 1)
    writer.transport.abort()
    await running(server, 0)


async def test_request_in_flight_is_finished_and_new_ones_are_refused(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate")
    async with run_server(server_config(tmp_path / "models")) as server:
        port = server.http_port
        held = asyncio.create_task(post(port, "/v2/models/blocked/infer", identity_json(7)))
        await running(server, 1)
        stopping = asyncio.create_task(server.app.stop())
        await server.app.readiness.wait_closing()
        late = await post(port, "/v2/models/blocked/infer", identity_json(1))
        assert late.status == 503
        assert "shutting down" in late.json["error"] and late.headers["retry-after"] == "1"
        assert (await ask(port, "/v2/health/ready")).status == 400
        (tmp_path / "gate").touch()
        assert outputs(await held)["OUTPUT0"] == [7.0]
        assert await stopping


async def test_models_are_loaded_and_unloaded(tmp_path: Path) -> None:
    write_simple(tmp_path)
    config = server_config(tmp_path, model_control_mode="explicit")
    async with run_server(config) as server:
        port = server.http_port
        ready = "/v2/models/simple/ready"
        assert (await ask(port, ready)).status == 400
        assert (await post(port, "/v2/repository/models/simple/load")).status == 200
        assert (await ask(port, ready)).status == 200
        index = await post(port, "/v2/repository/index", {"ready": True})
        assert index.json == [{"name": "simple", "version": "1", "state": "READY"}]
        override = {"parameters": {"config": '{"max_batch_size": 4, "backend": "fixture"}'}}
        reply = await post(port, "/v2/repository/models/simple/load", override)
        assert reply.status == 200, reply.body
        assert (await ask(port, "/v2/models/simple/config")).json["max_batch_size"] == 4
        assert (await post(port, "/v2/repository/models/simple/unload")).status == 200
        assert (await ask(port, ready)).status == 400
        missing = await post(port, "/v2/repository/models/nobody/load")
        assert missing.status == 500 and "failed to load 'nobody'" in missing.json["error"]


async def test_http_serves_without_grpc(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path, allow_grpc=False)) as server:
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json())
        assert outputs(reply)["OUTPUT0"] == list(range(1, 17))


async def test_http_of_health_only_has_nothing_else(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path, http_api="health")) as server:
        assert (await ask(server.http_port, "/v2/health/ready")).status == 200
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json())
        assert reply.status == 404


async def test_many_clients_at_once_each_get_their_own(server: RunningServer) -> None:
    async def one(number: int) -> bool:
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json(number))
        return outputs(reply)["OUTPUT0"] == list(range(number, number + 16))

    assert all(await asyncio.gather(*(one(number) for number in range(200))))
