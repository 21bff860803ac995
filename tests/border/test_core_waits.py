"""Requests of the asyncio lane that wait for their model to be loaded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.core_models import load, request
from tests.support.decoupled_requests import numbers, square
from tests.support.fixture_models import FIXTURE_BACKENDS
from tritonclient.grpc import service_pb2 as wire

from penstock import _core
from penstock.core import Core, Responses, StreamReply
from penstock.errors import Code, CoreError

SQUARE = "square_int32"


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    made = Core(backend_directories=[str(FIXTURE_BACKENDS)])
    made.start()
    made.engine.set_serving(SQUARE, [], [], loads_on_demand=True)
    made.engine.set_serving("m", [], [], loads_on_demand=True)
    yield made
    assert await made.close()


@pytest.fixture
def demands(core: Core) -> asyncio.Queue[str]:
    """Names of models that requests have begun to wait for."""
    names: asyncio.Queue[str] = asyncio.Queue()
    core.watch_demands(names.put_nowait)
    return names


def decoupled_version(core: Core) -> _core.Version:
    spec = _core.VersionSpec(
        model_name=SQUARE,
        version=1,
        inputs=[_core.InputSpec("IN", "INT32", [1])],
        outputs=[_core.OutputSpec("OUT", "INT32", [1])],
        decoupled=True,
    )
    version = core.engine.create_version(load(core.engine, kind=SQUARE), spec)
    version.start()
    return version


async def replies(found: StreamReply | Responses) -> list[tuple[int, ...]]:
    assert isinstance(found, Responses)
    messages = [wire.ModelStreamInferResponse.FromString(each.payload) async for each in found]
    return [numbers(each) for each in messages]


async def test_decoupled_request_that_waits_twice_has_all_its_responses(
    core: Core, demands: asyncio.Queue[str]
) -> None:
    version = decoupled_version(core)
    async with asyncio.timeout(60):
        asked = asyncio.create_task(core.stream_infer(square(3)))
        await demands.get()
        core.engine.set_serving(SQUARE, [version], [], loads_on_demand=True)
        core.engine.set_serving(SQUARE, [], [], loads_on_demand=True)  # gone before it looked
        await demands.get()
        core.engine.set_serving(SQUARE, [version], [], loads_on_demand=True)
        assert await replies(await asked) == [(3,)] * 3


async def test_decoupled_request_whose_load_is_given_up_is_a_new_demand(
    core: Core, demands: asyncio.Queue[str]
) -> None:
    version = decoupled_version(core)
    async with asyncio.timeout(60):
        asked = asyncio.create_task(core.stream_infer(square(2)))
        await demands.get()
        core.engine.give_up_load(SQUARE)
        assert await demands.get() == SQUARE
        core.engine.set_serving(SQUARE, [version], [], loads_on_demand=True)
        assert await replies(await asked) == [(2,)] * 2


async def test_stream_request_whose_second_wait_fails_says_so(
    core: Core, demands: asyncio.Queue[str]
) -> None:
    async with asyncio.timeout(60):
        asked = asyncio.create_task(core.stream_infer(square(2)))
        await demands.get()
        core.engine.give_up_load(SQUARE)
        await demands.get()
        core.engine.end_wait(SQUARE, Code.INTERNAL, "corrupt")
        reply = await asked
    assert isinstance(reply, StreamReply)
    assert (reply.code, reply.message) == (Code.INTERNAL, "corrupt")


async def test_version_that_no_load_brings_is_refused(
    core: Core, demands: asyncio.Queue[str]
) -> None:
    wanted: Any = wire.ModelInferRequest.FromString(request())
    wanted.model_version = "7"
    async with asyncio.timeout(60):
        asked = asyncio.create_task(core.infer(wanted.SerializeToString()))
        assert await demands.get() == "m"
        core.engine.set_loadable("m", [1])
        with pytest.raises(CoreError, match="'m' version 7 is not found") as caught:
            await asked
    assert caught.value.code is Code.NOT_FOUND
