"""Models under a memory budget over HTTP: loaded by the request that asks for them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fixture_models import (
    write_blocked,
    write_model,
    write_repeat,
    write_simple,
    write_square,
)
from tests.support.http import ask, post
from tests.support.http_requests import identity_json, outputs, simple_json
from tests.support.run_server import RunningServer, run_server, server_config

pytestmark = pytest.mark.any_transport


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A new one for each test, with nothing loaded."""
    models = tmp_path / "models"
    write_simple(models)
    write_repeat(models)
    write_square(models)
    write_model(models, "bad", kind="fail_load")
    async with run_server(config(models)) as running:
        yield running


def config(models: Path, budget: str = "1G") -> Any:
    return server_config(models, model_memory_budget=budget, model_min_residency_secs=0.0)


def loaded(server: RunningServer) -> list[str]:
    return sorted(server.app.models.memory()["resident"])  # type: ignore[index]


async def test_inference_loads_its_model(server: RunningServer) -> None:
    reply = await post(server.http_port, "/v2/models/simple/infer", simple_json())
    assert outputs(reply)["OUTPUT0"] == list(range(1, 17))
    assert loaded(server) == ["simple"]


async def test_requests_at_once_are_one_load(server: RunningServer) -> None:
    path = "/v2/models/simple/infer"
    replies = await asyncio.gather(
        *(post(server.http_port, path, simple_json()) for _ in range(20))
    )
    assert {reply.status for reply in replies} == {200}
    assert server.app.models.memory()["loads"] == {"done": 1, "failed": 0}  # type: ignore[index]


async def test_generate_loads_its_model(server: RunningServer) -> None:
    reply = await post(server.http_port, "/v2/models/square_int32/generate", {"IN": 1})
    assert (reply.status, reply.json.get("OUT")) == (200, 1)
    assert loaded(server) == ["square_int32"]


async def test_stream_of_events_loads_its_model(server: RunningServer) -> None:
    body = {"IN": [4, 5], "DELAY": [0, 0], "WAIT": 0}
    reply = await post(server.http_port, "/v2/models/repeat_int32/generate_stream", body)
    assert reply.status == 200
    assert reply.body.count(b"data: ") == 2


async def test_raw_tensor_loads_its_model(tmp_path: Path) -> None:
    """Its datatype and shape are the model's."""
    write_model(tmp_path, "identity", kind="identity")
    async with run_server(config(tmp_path)) as server:
        reply = await ask(
            server.http_port,
            "/v2/models/identity/infer",
            method="POST",
            headers={"Inference-Header-Content-Length": "0"},
            body=bytes(8),
        )
        assert reply.status == 200, reply.body
        assert loaded(server) == ["identity"]


async def test_what_only_looks_loads_nothing(server: RunningServer) -> None:
    for path in ("", "/config", "/stats"):
        reply = await ask(server.http_port, f"/v2/models/simple{path}")
        assert reply.status == 503, reply.body
        assert b"its next inference request loads it" in reply.body
    assert (await ask(server.http_port, "/v2/models/simple/ready")).status == 400
    assert (await ask(server.http_port, "/v2/health/ready")).status == 200
    assert loaded(server) == []


async def test_version_that_is_not_there_loads_nothing(server: RunningServer) -> None:
    for route in ("infer", "generate"):
        path = f"/v2/models/simple/versions/7/{route}"
        reply = await post(server.http_port, path, simple_json())
        assert reply.status == 404, reply.body
        assert b"'simple' version 7 is not found" in reply.body
        path = f"/v2/models/simple/versions/seven/{route}"
        assert (await post(server.http_port, path, simple_json())).status == 400
    assert loaded(server) == []


async def test_load_that_fails_says_why(server: RunningServer) -> None:
    for route in ("infer", "generate"):
        reply = await post(server.http_port, f"/v2/models/bad/{route}", identity_json(1))
        assert reply.status >= 400
        assert b"failed to load 'bad'" in reply.body


async def test_client_that_leaves_waits_no_more(tmp_path: Path) -> None:
    gate, models = tmp_path / "gate", tmp_path / "models"
    size = 'parameters { key: "memory_bytes" value { string_value: "100" } }\n'
    write_blocked(models, gate, "blocked", config=size)
    write_simple(models, config="max_batch_size: 8\n" + size)
    async with run_server(config(models, "100")) as server:
        path = "/v2/models/blocked/infer"
        running = asyncio.create_task(post(server.http_port, path, identity_json(1)))
        await until(server, lambda: loaded(server) == ["blocked"])
        path = "/v2/models/simple/infer"
        waiting = asyncio.create_task(post(server.http_port, path, simple_json()))
        engine = server.app.core.engine
        await until(server, lambda: engine.waiting("simple") == 1)
        waiting.cancel()
        await until(server, lambda: engine.waiting("simple") == 0)
        gate.touch()
        assert (await running).status == 200
        assert loaded(server) == ["blocked"]


async def until(server: RunningServer, holds: Any) -> None:
    """The core has no event for what it counts: it is asked, and a probe is answered between."""
    async with asyncio.timeout(60):
        while not holds():
            await ask(server.http_port, "/v2/health/live")
