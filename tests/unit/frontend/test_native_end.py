"""What ends calls of the native transport from outside: verifications, defects, the stop."""

import asyncio
from typing import Any

import grpc
import pytest
from tests.support.fake_transport import FakeCall, FakeGate, FakeTransport

from penstock.core import CallEvent
from penstock.errors import ResourceExhaustedError, UnauthenticatedError
from penstock.frontend.native_server import NativeServer
from penstock.frontend.stream import SHUTTING_DOWN

OK, INTERNAL, UNAVAILABLE = 0, 13, 14


def serve(server: NativeServer, behaviour: Any) -> None:
    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    server.add_registered_method_handlers("s.S", {"M": handler})


async def answer_of(call: FakeCall) -> tuple[list[bytes], int, str]:
    """What the client gets."""
    await call.over.wait()
    assert call.status is not None
    return call.written, call.status[0], call.status[1]


async def shout(text: bytes, _context: Any) -> bytes:
    return text.upper()


async def test_cancel_all_ends_every_handler(server: NativeServer, core: FakeTransport) -> None:
    begun = asyncio.Event()

    async def wait(_request: bytes, _context: Any) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    serve(server, wait)
    call = core.call("/s.S/M").send(b"", end=True)
    await begun.wait()
    await server.cancel_all(60)
    assert (await answer_of(call))[1] == grpc.StatusCode.CANCELLED.value[0]


async def test_cancel_all_is_bounded_and_ends_calls_that_go_on(
    server: NativeServer, core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def insist(_request: bytes, _context: Any) -> bytes:
        begun.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return b""

    serve(server, insist)
    call = core.call("/s.S/M").send(b"", end=True)
    await begun.wait()
    await server.cancel_all(0.01)
    assert await answer_of(call) == ([], UNAVAILABLE, SHUTTING_DOWN)
    assert "STARTED /s.S/M goes on although it was cancelled" in caplog.text
    release.set()


async def test_handler_that_is_cancelled_before_its_first_step_leaves_no_call_without_a_status(
    server: NativeServer, core: FakeTransport
) -> None:
    serve(server, shout)
    call = core.call("/s.S/M").send(b"", end=True)
    server._on_readable()
    await server.cancel_all(60)
    assert await answer_of(call) == ([], UNAVAILABLE, SHUTTING_DOWN)


async def test_calls_that_come_after_cancel_all_are_refused(
    server: NativeServer, core: FakeTransport, gate: FakeGate
) -> None:
    serve(server, shout)
    await server.cancel_all(60)
    core.call("/i.I/ModelInfer", event=CallEvent.VERIFY)
    call = core.call("/s.S/M").send(b"", end=True)
    assert await answer_of(call) == ([], UNAVAILABLE, SHUTTING_DOWN)
    assert gate.asked == [] and not server.tasks


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        (None, (0, "", -1)),
        (ResourceExhaustedError("too many", 500), (8, "too many", 500)),
        (UnauthenticatedError("no"), (16, "no", -1)),
    ],
)
async def test_core_hears_what_came_of_a_verification(
    server: NativeServer,
    core: FakeTransport,
    gate: FakeGate,
    failure: Exception | None,
    verdict: Any,
) -> None:
    gate.failure = failure
    call = core.call("/i.I/ModelInfer", event=CallEvent.VERIFY, caller="somebody")
    gate.release.set()
    await call.over.wait()
    assert gate.asked == [("inference", "somebody")]
    assert call.verdict == verdict


async def test_defect_of_the_verifier_is_internal_and_its_text_stays_in_the_log(
    server: NativeServer, core: FakeTransport, gate: FakeGate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.failure = RuntimeError("a secret")
    gate.release.set()
    call = core.call("/i.I/ModelInfer", event=CallEvent.VERIFY)
    await call.over.wait()
    assert call.verdict is not None
    code, message, _ = call.verdict
    assert code == INTERNAL and "ModelInfer; the server's log has it as incident" in message
    assert "a secret" in caplog.text and "a secret" not in message


async def test_nothing_is_left_of_a_verification(
    server: NativeServer, core: FakeTransport, gate: FakeGate
) -> None:
    call = core.call("/i.I/ModelInfer", event=CallEvent.VERIFY)
    await gate.begun.wait()
    (task,) = server.tasks
    gate.release.set()
    await asyncio.wait({task})
    assert call.verdict == (0, "", -1)
    assert not server.tasks and not server._calls


async def test_verification_that_is_cancelled_ends_its_call(
    server: NativeServer, core: FakeTransport, gate: FakeGate
) -> None:
    call = core.call("/i.I/ModelInfer", event=CallEvent.VERIFY)
    await gate.begun.wait()
    await server.cancel_all(60)
    assert call.verdict == (UNAVAILABLE, SHUTTING_DOWN, -1)


class Hostile(FakeCall):
    """Its path cannot be had."""

    @property
    def path(self) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "hostile")

    @path.setter
    def path(self, value: Any) -> None:
        pass


async def test_event_that_cannot_be_taken_ends_its_call_and_no_other(
    server: NativeServer, core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    serve(server, shout)
    bad, unverified = Hostile(core, ""), Hostile(core, "")
    core.active += 2
    core.push(bad, CallEvent.STARTED)
    core.push(unverified, CallEvent.VERIFY)
    good = core.call("/s.S/M").send(b"a", end=True)
    assert await answer_of(good) == ([b"A"], OK, "")
    _, code, details = await answer_of(bad)
    assert code == INTERNAL and "incident" in details
    assert unverified.verdict is not None and unverified.verdict[0] == INTERNAL
    assert "UnicodeDecodeError" in caplog.text
