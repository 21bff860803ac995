"""What a stream's request is answered with when its caller's token cannot be verified again."""

import asyncio
from typing import Any

import grpc
from tests.support.fake_frontend import FakeCore
from tritonclient.grpc import service_pb2

from penstock.errors import ResourceExhaustedError
from penstock.frontend.gate import Gate
from penstock.frontend.inference import InferenceHandlers
from penstock.frontend.readiness import Readiness


class FakeAccess(FakeCore):
    """Knows the caller's token when the call begins, and never again."""

    looks = 0

    def identify(self, metadata: object, connection: str) -> Any:
        return object()

    def needs_verification(self, group: str, caller: Any) -> bool:
        self.looks += 1
        return self.looks > 1


class BusyVerifier:
    async def verify(self, caller: Any) -> None:
        raise ResourceExhaustedError("too many tokens are being verified", 1000)


class FakeContext:
    """A stream with one request."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[bytes] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None:
        return None

    async def read(self) -> Any:
        return await self.inbox.get()

    async def write(self, message: bytes) -> None:
        self.written.append(message)


async def test_refused_verification_is_a_reply_and_the_stream_goes_on() -> None:
    core = FakeAccess(is_active=True)
    gate = Gate(core, BusyVerifier())
    handlers = InferenceHandlers(core, Readiness(lambda: True), gate, 4)
    context = FakeContext()
    for message in (b"one", b"two", grpc.aio.EOF):  # type: ignore[attr-defined]
        context.inbox.put_nowait(message)
    await handlers.model_stream_infer(None, context)
    replies = [service_pb2.ModelStreamInferResponse.FromString(each) for each in context.written]
    assert [each.error_message for each in replies] == ["too many tokens are being verified"] * 2
    assert core.asked == []
