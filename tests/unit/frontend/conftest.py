"""The server of the native transport over a core of Python."""

from collections.abc import AsyncIterator

import pytest
from tests.support.fake_transport import FakeGate, FakeTransport

from penstock.frontend.native_server import NativeServer

_LIMIT = 1000


@pytest.fixture
async def core() -> AsyncIterator[FakeTransport]:
    transport = FakeTransport()
    yield transport
    transport.close()


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


@pytest.fixture
async def server(core: FakeTransport, gate: FakeGate) -> AsyncIterator[NativeServer]:
    made = NativeServer(gate, _LIMIT)
    made.start(core)
    yield made
    await made.cancel_all(60)
    made.detach()
