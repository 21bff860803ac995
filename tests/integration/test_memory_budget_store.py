"""Models of the store under a memory budget: unloaded for each other, and loaded when asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.models.onnx_files import add_constant, row_sums, write_model
from tests.support.store_world import Asked, World, serving
from tritonclient.grpc import InferInput

from penstock.config import ServerConfig
from penstock.store.pushing import PushRequest, push_model
from penstock.store.records import Deployment
from penstock.store.store import open_store
from penstock.stored import inspect_model

pytestmark = pytest.mark.any_transport

TAKES = 'parameters {{ key: "memory_bytes" value {{ string_value: "{}" }} }}\n'


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two models, deployed, of which the budget has room for one."""
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        made = World(opened, url, tmp_path)
        for name, constant in (("a", 1.0), ("b", 2.0)):
            push(made, name, add_constant(constant))
            made.deploy(f"{name}@1")
        yield made


def push(world: World, name: str, model: onnx.ModelProto, size: int = 100) -> None:
    folder = world.place / name
    write_model(folder, name, model, config=TAKES.format(size))
    request = PushRequest(name=name, path=folder / name, from_version=1)
    push_model(world.store, request, inspect_model, world.place)


def config(world: World) -> ServerConfig:
    return world.config(model_memory_budget="100", model_min_residency_secs=0.0)


async def answer(asked: Asked, name: str) -> tuple[str, float]:
    """The version that answers, and what it adds to zero."""
    given = InferInput("INPUT0", [1, 2], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2), np.float32))
    result = await asked.client.infer(name, [given])
    return result.get_response().model_version, float(result.as_numpy("OUTPUT0")[0, 0])


async def deployed(world: World, reference: str, **more: Any) -> Deployment:
    for each in world.store.desired("prod")[1]:
        await world.settled(each.target)
    return await world.settled(await asyncio.to_thread(world.deploy, reference, **more))


def resident(asked: Asked) -> dict[str, int]:
    return dict((asked.server.app.models.memory() or {})["resident"])


async def test_models_take_turns_and_all_are_served(world: World) -> None:
    async with serving(config(world)) as asked:
        for _ in range(3):
            assert await answer(asked, "a") == ("1", 1.0)
            assert resident(asked) == {"a": 100}
            assert await answer(asked, "b") == ("1", 2.0)
            assert resident(asked) == {"b": 100}
        assert asked.server.app.readiness.is_ready
    statuses = [d.status for name in "ab" for d in world.store.environments_of(name)]
    assert statuses == ["SERVING", "SERVING"]


async def test_version_that_is_deployed_while_its_model_is_unloaded_is_what_is_loaded_then(
    world: World,
) -> None:
    async with serving(config(world)) as asked:
        await answer(asked, "b")
        push(world, "a", add_constant(5.0))
        assert (await deployed(world, "a@2")).status == "SERVING"
        await answer(asked, "b")
        assert await answer(asked, "a") == ("2", 5.0)
        await answer(asked, "b")
        rollback = await asyncio.to_thread(world.store.rollback, "a", "prod")
        assert (await world.settled(rollback)).status == "SERVING"
        await answer(asked, "b")
        assert await answer(asked, "a") == ("1", 1.0)


async def test_version_that_breaks_the_interface_of_an_unloaded_one_is_refused(
    world: World,
) -> None:
    async with serving(config(world)) as asked:
        await answer(asked, "b")
        push(world, "a", row_sums())
        failed = await deployed(world, "a@2")
        assert failed.status == "FAILED"
        assert "its interface breaks clients of version 1" in failed.reason
        assert await answer(asked, "a") == ("1", 1.0)


async def test_version_that_does_not_fit_is_refused_with_bytes(world: World) -> None:
    async with serving(config(world)) as asked:
        push(world, "a", add_constant(5.0), size=101)
        failed = await deployed(world, "a@2")
        assert failed.status == "FAILED"
        assert "takes 101 bytes, and the memory budget is 100 bytes" in failed.reason
        assert await answer(asked, "a") == ("1", 1.0)
        assert await answer(asked, "b") == ("1", 2.0)


async def test_model_that_is_withdrawn_while_it_is_unloaded_is_loaded_no_more(
    world: World,
) -> None:
    async with serving(config(world)) as asked:
        await answer(asked, "b")
        await asyncio.to_thread(world.store.undeploy, "a", "prod")
        async with asyncio.timeout(60):
            while asked.server.app.core.engine.waiting("a") or await is_served(asked, "a"):
                pass
        assert resident(asked) == {"b": 100}


async def is_served(asked: Asked, name: str) -> bool:
    index = await asked.client.get_model_repository_index()
    return any(each.name == name and each.reason != "unloaded" for each in index.models)
