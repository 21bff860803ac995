"""Models under a memory budget on the wire: loaded when they are asked for, unloaded when idle."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.decoupled_requests import HOUR_MS, numbers, repeat
from tests.support.fixture_models import write_blocked, write_model, write_repeat, write_simple
from tests.support.http import ask
from tests.support.models.python_files import IDENTITY, add_python_model
from tests.support.requests import identity_request, simple_request, sums
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

BATCHED = "max_batch_size: 8\n"


def declared(size: int, **more: str) -> str:
    """Parameters of a model that says what it takes."""
    keys = {"memory_bytes": str(size), **more}
    entry = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }}\n'
    return "".join(entry.format(key, value) for key, value in keys.items())


@asynccontextmanager
async def serving(repository: Path, budget: int, **settings: Any) -> AsyncIterator[RunningServer]:
    values = {"model_min_residency_secs": 0.0, "model_memory_budget": str(budget), **settings}
    async with run_server(server_config(repository, **values)) as server:
        yield server


async def infer(client: Any, request: Any, limit_s: float = 60) -> Any:
    data = await client.unary("ModelInfer", request.SerializeToString(), timeout=limit_s)
    return wire.ModelInferResponse.FromString(data)


async def refusal(client: Any, request: Any, limit_s: float = 60) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(client, request, limit_s)
    return caught.value.code(), caught.value.details() or ""


async def index(client: Any) -> dict[str, tuple[str, str]]:
    data = await client.unary("RepositoryIndex", b"")
    models = wire.RepositoryIndexResponse.FromString(data).models
    return {model.name: (model.state, model.reason) for model in models}


async def is_ready(client: Any, name: str) -> bool:
    request = wire.ModelReadyRequest(name=name)
    data = await client.unary("ModelReady", request.SerializeToString())
    return bool(wire.ModelReadyResponse.FromString(data).ready)


async def until_ready(client: Any, name: str) -> None:
    async with asyncio.timeout(60):
        while not await is_ready(client, name):
            pass


async def metrics(server: RunningServer) -> str:
    return (await ask(server.metrics_port, "/metrics")).body.decode()


async def test_twenty_models_under_a_budget_for_five(tmp_path: Path) -> None:
    """Random traffic: every answer is right and of the model that was asked, and none is lost."""
    names = [f"m{number}" for number in range(20)]
    for name in names:
        write_simple(tmp_path, name, config=BATCHED + declared(100))
    async with serving(tmp_path, 500) as server, server.client() as client:
        assert server.app.readiness.is_ready  # though none is loaded

        async def ask_often(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(40):
                name = dice.choice(names)
                response = await infer(client, simple_request(model_name=name))
                assert response.model_name == name
                assert sums(response) == sums_of_one()

        await asyncio.gather(*(ask_often(seed) for seed in range(8)))
        text = await metrics(server)
        resident = [line for line in text.splitlines() if "model_resident_bytes{" in line]
        assert 1 <= len(resident) <= 5
        assert 'penstock_model_loads_on_demand_total{outcome="failed"} 0' in text
        assert server.app.core.infer_stats()["completed"] == {"OK": 320}
        states = await index(client)
        assert [state for state, _ in states.values()].count("READY") <= 5
        assert any("memory budget" in reason for _, reason in states.values())
        assert server.app.readiness.is_ready


def sums_of_one() -> tuple[int, ...]:
    """What `simple` answers to `simple_request`."""
    return tuple(range(1, 17))


async def test_model_is_loaded_by_its_first_request_and_says_so_until_then(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        assert (await index(client))["simple"][0] == "UNAVAILABLE"
        assert "the first request loads it" in (await index(client))["simple"][1]
        assert not await is_ready(client, "simple")
        with pytest.raises(grpc.aio.AioRpcError, match="its next inference request loads it"):
            await client.unary(
                "ModelMetadata", wire.ModelMetadataRequest(name="simple").SerializeToString()
            )
        await infer(client, simple_request())
        assert await is_ready(client, "simple")
        assert (await index(client))["simple"] == ("READY", "")


async def test_requests_at_once_are_one_load(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        await asyncio.gather(*(infer(client, simple_request()) for _ in range(50)))
        text = await metrics(server)
    assert 'penstock_model_loads_on_demand_total{outcome="done"} 1' in text
    (waited,) = re.findall(r"^penstock_model_load_wait_seconds_count (\d+)$", text, re.M)
    assert 1 <= int(waited) <= 50  # some may have come when it was there


async def test_model_that_does_not_fit_is_refused_with_bytes(tmp_path: Path) -> None:
    write_simple(tmp_path, config=BATCHED + declared(1000))
    async with serving(tmp_path, 500) as server, server.client() as client:
        code, text = await refusal(client, simple_request())
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "model 'simple' takes 1000 bytes, and the memory budget is 500 bytes" in text


async def test_load_that_fails_on_demand_says_why_to_all_who_wait(tmp_path: Path) -> None:
    write_model(tmp_path, "bad", kind="fail_load", config=declared(1))
    async with serving(tmp_path, 500) as server, server.client() as client:
        request = identity_request([1], model="bad")
        answers = await asyncio.gather(*(refusal(client, request) for _ in range(5)))
        assert {code for code, _ in answers} == {answers[0][0]}
        assert all("failed to load 'bad'" in text for _, text in answers)
        assert "failed to load 'bad'" in (await index(client))["bad"][1]
        assert server.app.readiness.is_ready  # anybody may ask for it


async def test_least_recently_used_goes_first_and_pinned_ones_never(tmp_path: Path) -> None:
    write_simple(tmp_path, "pinned", config=BATCHED + declared(100, memory_pinned="true"))
    for name in ("a", "b", "c"):
        write_simple(tmp_path, name, config=BATCHED + declared(100))
    async with serving(tmp_path, 300) as server, server.client() as client:
        assert await is_ready(client, "pinned")
        for name in ("a", "b", "a", "c"):
            await infer(client, simple_request(model_name=name))
            used_ms = int(time.time() * 1e3)  # what is remembered of a use
            while int(time.time() * 1e3) == used_ms:
                await is_ready(client, name)
        assert [await is_ready(client, name) for name in ("pinned", "a", "b", "c")] == [
            *(True, True, False, True)
        ]
        assert "idle" in (await index(client))["b"][1]


async def test_model_in_use_is_not_unloaded_and_who_waits_has_a_deadline(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    models = tmp_path / "models"
    write_blocked(models, gate, "blocked", config=declared(100))
    write_simple(models, config=BATCHED + declared(100))
    async with serving(models, 100) as server, server.client() as client:
        running = asyncio.create_task(infer(client, identity_request([7], model="blocked")))
        await until_ready(client, "blocked")
        code, _ = await refusal(client, simple_request(), limit_s=0.3)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = asyncio.create_task(infer(client, simple_request()))
        gate.touch()
        assert (await running).model_name == "blocked"
        assert (await waiting).model_name == "simple"


async def test_model_with_an_open_stream_is_never_unloaded(tmp_path: Path) -> None:
    config = "max_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n" + declared(100)
    write_model(tmp_path, "repeat_int32", kind="repeat_int32", config=config)
    write_simple(tmp_path, config=BATCHED + declared(100))
    async with serving(tmp_path, 100) as server, server.client() as client:
        call = client.stream([repeat([1, 2], [0, HOUR_MS])])
        first = wire.ModelStreamInferResponse.FromString(await call.read())
        assert numbers(first) == (1, 0)
        code, _ = await refusal(client, simple_request(), limit_s=0.3)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await is_ready(client, "repeat_int32")
        call.cancel()
        assert (await infer(client, simple_request())).model_name == "simple"


async def test_stream_that_waits_for_models_is_answered_in_order(tmp_path: Path) -> None:
    """Also where one of them turns out to be decoupled only once it is loaded."""
    write_repeat(tmp_path)
    write_simple(tmp_path)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        requests = [
            simple_request(id="1").SerializeToString(),
            repeat([5, 6], id="2"),
            simple_request(id="3").SerializeToString(),
        ]
        found = [
            wire.ModelStreamInferResponse.FromString(data) async for data in client.stream(requests)
        ]
    assert [reply.error_message for reply in found] == [""] * 4
    ids = [reply.infer_response.id for reply in found]
    assert sorted(ids) == ["1", "2", "2", "3"]
    assert ids.index("1") < ids.index("3")


async def test_full_wait_is_resource_exhausted(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    models = tmp_path / "models"
    write_blocked(models, gate, "blocked", config=declared(100))
    write_simple(models, config=BATCHED + declared(100))
    async with serving(models, 100, model_load_queue_size=2) as server, server.client() as client:
        running = asyncio.create_task(infer(client, identity_request([7], model="blocked")))
        await until_ready(client, "blocked")
        waiting = [asyncio.create_task(infer(client, simple_request())) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 requests wait for it already" in (error.details() or "")
        gate.touch()
        await asyncio.gather(running, *(task for task in waiting if task is not refused))


async def test_model_unloaded_by_wish_is_not_loaded_on_demand(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with (
        serving(tmp_path, 1 << 30, model_control_mode="explicit", load_model=("simple",)) as server,
        server.client() as client,
    ):
        await infer(client, simple_request())
        unload = wire.RepositoryModelUnloadRequest(model_name="simple")
        await client.unary("RepositoryModelUnload", unload.SerializeToString())
        code, _ = await refusal(client, simple_request())
        assert code is grpc.StatusCode.NOT_FOUND
        load = wire.RepositoryModelLoadRequest(model_name="simple")
        await client.unary("RepositoryModelLoad", load.SerializeToString())
        await infer(client, simple_request())


async def test_version_that_is_not_there_loads_nothing(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        for version, expected in (
            ("7", grpc.StatusCode.NOT_FOUND),
            ("seven", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            code, text = await refusal(client, simple_request(model_version=version))
            assert (code, version in text) == (expected, True)
            assert not await is_ready(client, "simple")
        assert (await infer(client, simple_request(model_version="1"))).model_version == "1"


async def test_version_that_is_not_drained_in_time_counts_until_it_is_gone(
    tmp_path: Path,
) -> None:
    gate, models = tmp_path / "gate", tmp_path / "models"
    write_blocked(models, gate, "blocked", config=declared(100))
    settings: dict[str, Any] = {"model_control_mode": "explicit", "exit_timeout_secs": 0.2}
    async with serving(models, 150, **settings) as server, server.client() as client:
        running = asyncio.create_task(infer(client, identity_request([7], model="blocked")))
        await until_ready(client, "blocked")
        async with asyncio.timeout(60):
            while not server.app.models.statistics("blocked")[0].counters["running"]:
                await is_ready(client, "blocked")
            unload = wire.RepositoryModelUnloadRequest(model_name="blocked")
            await client.unary("RepositoryModelUnload", unload.SerializeToString())
            while (await index(client))["blocked"][0] != "UNAVAILABLE":
                pass
            held = 'penstock_model_resident_bytes{model="blocked"} 100'
            assert held in await metrics(server)
            gate.touch()
            while held in await metrics(server):
                pass
        assert (await running).model_name == "blocked"


async def test_stop_during_a_load_on_demand_ends_who_waits(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    models = tmp_path / "models"
    write_blocked(models, gate, "blocked", config=declared(100))
    write_simple(models, config=BATCHED + declared(100))
    async with serving(models, 100, exit_timeout_secs=0.3) as server, server.client() as client:
        running = asyncio.create_task(refusal(client, identity_request([7], model="blocked")))
        await until_ready(client, "blocked")
        waiting = asyncio.create_task(refusal(client, simple_request()))
        async with asyncio.timeout(30):
            while not server.app.core.engine.waiting("simple"):
                await is_ready(client, "simple")
        await server.app.stop()
        for task in (running, waiting):
            code, _ = await task
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        gate.touch()


async def test_worker_that_is_killed_while_it_loads_fails_those_who_wait(tmp_path: Path) -> None:
    source = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    add_python_model(tmp_path, "m", source)
    write_simple(tmp_path)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        request = identity_request([1], model="m")
        for code, text in await asyncio.gather(*(refusal(client, request) for _ in range(3))):
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "was killed by SIGKILL while it loaded" in text
        await infer(client, simple_request())


async def test_python_model_is_measured_with_its_worker(tmp_path: Path) -> None:
    source = IDENTITY.replace("def predict", "ballast = b'x' * (48 << 20)\n\n        def predict")
    add_python_model(tmp_path, "m", source)
    async with serving(tmp_path, 1 << 30) as server, server.client() as client:
        await infer(client, identity_request([1], model="m"))
        text = await metrics(server)
    (size,) = re.findall(r'^penstock_model_resident_bytes\{model="m"\} (\d+)$', text, re.M)
    assert 48 << 20 <= int(size) < 256 << 20
