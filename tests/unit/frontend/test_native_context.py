"""The servicer context of the native transport does as grpc.aio's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from tests.support.fake_transport import FakeCall, FakeTransport

from penstock.core import CallEvent
from penstock.frontend.native_call import CallPipe
from penstock.frontend.native_context import NativeContext

Code = grpc.StatusCode
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
LIMIT = 1000


@pytest.fixture
async def core() -> AsyncIterator[FakeTransport]:
    transport = FakeTransport()
    yield transport
    transport.close()


class Held:
    """A context, its call and its events."""

    def __init__(self, core: FakeTransport, **facts: Any) -> None:
        self.call: FakeCall = core.call("/s.S/M", **facts)
        self.pipe = CallPipe(self.call)
        self.context = NativeContext(self.pipe, max_message_bytes=LIMIT)
        self._core = core

    def deliver(self) -> None:
        for _, kind, payload in self._core.take_events():
            if kind == CallEvent.WRITTEN:
                self.pipe.on_written()
            elif kind == CallEvent.CLOSED:
                self.pipe.close()
            elif kind != CallEvent.STARTED:
                self.pipe.on_message(payload)


async def turn(task: asyncio.Future[Any]) -> None:
    """One turn of the loop, in which the task gets to its first wait."""
    await asyncio.wait({task}, timeout=0)


async def test_abort_sends_the_status_and_raises(core: FakeTransport) -> None:
    held = Held(core)
    with pytest.raises(grpc.aio.AbortError):
        await held.context.abort(Code.NOT_FOUND, "no such thing", (("k", "v"),))
    assert held.call.status == (5, "no such thing", (("k", "v"),))
    assert held.context.done()
    with pytest.raises(grpc.aio.UsageError, match="Abort already called"):
        await held.context.abort(Code.NOT_FOUND)
    with pytest.raises(grpc.aio.AbortError):
        await held.context.write(b"")


async def test_abort_takes_what_was_set_before(core: FakeTransport) -> None:
    held = Held(core)
    held.context.set_details("set before")
    held.context.set_trailing_metadata((("k-bin", b"\x00"),))
    with pytest.raises(grpc.aio.AbortError):
        await held.context.abort(Code.ABORTED)
    assert held.call.status == (10, "set before", (("k-bin", b"\x00"),))


async def test_abort_with_ok_is_a_mistake(core: FakeTransport) -> None:
    held = Held(core)
    with pytest.raises(grpc.aio.UsageError, match="the status OK"):
        await held.context.abort(Code.OK)
    assert held.call.status is None


async def test_code_and_details_are_remembered(core: FakeTransport) -> None:
    held = Held(core)
    assert held.context.code() is None
    held.context.set_code(Code.INTERNAL)
    held.context.set_details("why")
    assert (held.context.code(), held.context.details()) == (Code.INTERNAL, "why")
    with pytest.raises(ValueError, match="Invalid status code"):
        held.context.set_code(99)


async def test_response_is_left_out_where_the_status_is_an_error(core: FakeTransport) -> None:
    held = Held(core)
    held.context.set_code(Code.DATA_LOSS)
    await held.context.finish_with(b"nobody reads this")
    assert held.call.written == [] and held.call.status == (15, "", ())


async def test_headers_are_sent_once(core: FakeTransport) -> None:
    held = Held(core)
    await held.context.send_initial_metadata((("k", "v"),))
    assert held.call.headers == (("k", "v"),)
    with pytest.raises(grpc.aio.UsageError, match="already sent"):
        await held.context.send_initial_metadata((("k", "v"),))
    with pytest.raises(RuntimeError, match="before sending initial metadata"):
        held.context.set_compression(grpc.Compression.Gzip)


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (("Upper", "v"), "no key"),
        (("", "v"), "no key"),
        (("k", b"bytes"), "expected str"),
        (("k-bin", "text"), "expected bytes"),
        (("k", "line\nbreak"), "printable"),
    ],
)
async def test_metadata_that_no_header_can_be_is_refused(
    core: FakeTransport, pair: tuple[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        Held(core).context.set_trailing_metadata((pair,))


async def test_message_over_the_limit_ends_the_call(core: FakeTransport) -> None:
    held = Held(core)
    with pytest.raises(grpc.aio.AbortError):
        await held.context.write(b"x" * (LIMIT + 1))
    assert held.call.status is not None
    assert held.call.status[:2] == (8, "Sent message larger than max (1001 vs. 1000)")


async def test_second_read_at_a_time_is_an_error(core: FakeTransport) -> None:
    held = Held(core)
    first = asyncio.create_task(held.context.read())
    await turn(first)
    with pytest.raises(grpc.aio.UsageError, match="being read already"):
        await held.context.read()
    held.call.send(b"1", end=True)
    held.deliver()
    assert await first == b"1"
    last = asyncio.create_task(held.context.read())
    await turn(last)
    held.deliver()
    assert await last is EOF
    assert await held.context.read() is EOF


async def test_message_that_comes_after_its_reader_was_cancelled_is_the_next_ones(
    core: FakeTransport,
) -> None:
    held = Held(core)
    reader = asyncio.create_task(held.context.read())
    await turn(reader)
    reader.cancel()
    await asyncio.wait({reader})
    held.call.send(b"1")
    held.deliver()
    assert await held.context.read() == b"1"


async def test_message_that_comes_as_its_reader_is_cancelled_is_the_next_ones(
    core: FakeTransport,
) -> None:
    held = Held(core)
    reader = asyncio.create_task(held.context.read())
    await turn(reader)
    held.call.send(b"1")
    held.deliver()
    reader.cancel()
    await asyncio.wait({reader})
    assert reader.cancelled()
    assert await held.context.read() == b"1"


async def test_write_waits_until_the_message_is_out(core: FakeTransport) -> None:
    held = Held(core, is_slow=True)
    first = asyncio.create_task(held.context.write(b"1"))
    await turn(first)
    assert held.call.written == [b"1"] and not first.done()
    with pytest.raises(grpc.aio.UsageError, match="being written already"):
        await held.context.write(b"2")
    held.call.let_out()
    held.deliver()
    await first


async def test_write_after_one_that_was_cancelled_waits_for_that_one(core: FakeTransport) -> None:
    held = Held(core, is_slow=True)
    first = asyncio.create_task(held.context.write(b"1"))
    await turn(first)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(held.context.write(b"2"))
    await turn(second)
    assert held.call.written == [b"1"]
    for _ in range(2):
        held.call.let_out()
        held.deliver()
        await turn(second)
    await second
    assert held.call.written == [b"1", b"2"]


async def test_last_message_while_another_coroutine_writes_is_an_error(
    core: FakeTransport,
) -> None:
    held = Held(core, is_slow=True)
    first = asyncio.create_task(held.context.write(b"1"))
    await turn(first)
    with pytest.raises(grpc.aio.UsageError, match="being written already"):
        await held.context.finish_with(b"2")
    held.call.let_out()
    held.deliver()
    await first
    assert held.call.written == [b"1"]


async def test_closed_call_gives_no_message_and_takes_none(core: FakeTransport) -> None:
    held = Held(core, is_slow=True)
    reader = asyncio.create_task(held.context.read())
    writer = asyncio.create_task(held.context.write(b"1"))
    await turn(writer)
    held.call.leave()
    held.deliver()
    assert await reader is EOF
    with pytest.raises(grpc.aio.InternalError):
        await writer
    with pytest.raises(grpc.aio.InternalError):
        await held.context.write(b"2")
    assert await held.context.read() is EOF
    assert held.context.done() and held.context.cancelled()


async def test_peer_is_told_with_its_certificate(core: FakeTransport) -> None:
    kind = ("transport_security_type", b"ssl")
    common = ("x509_common_name", b"team-a")
    plain = Held(core).context
    named = Held(core, auth_properties=(kind, common)).context
    assert plain.peer() == "ipv4:127.0.0.1:4711"
    assert plain.connection() == "ipv4:127.0.0.1:4711#1"
    assert (plain.peer_identities(), plain.peer_identity_key(), plain.auth_context()) == (
        None,
        None,
        {},
    )
    assert named.peer_identities() == [b"team-a"]
    assert named.peer_identity_key() == "x509_common_name"
    assert named.auth_context() == {
        "transport_security_type": [b"ssl"],
        "x509_common_name": [b"team-a"],
    }
    alternative = [
        ("x509_subject_alternative_name", value) for value in (b"a.example", b"10.0.0.1")
    ]
    many = Held(core, auth_properties=(kind, common, *alternative)).context
    assert many.peer_identity_key() == "x509_subject_alternative_name"
    assert many.peer_identities() == [b"a.example", b"10.0.0.1"]
    assert Held(core, auth_properties=(kind,)).context.peer_identities() is None


async def test_callbacks_are_called_and_their_failure_is_logged(
    core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    context = Held(core).context
    called: list[Any] = []

    def fail(_context: Any) -> None:
        raise RuntimeError("in a callback")

    callbacks: list[Callable[[Any], None]] = [fail, called.append]
    for each in callbacks:
        context.add_done_callback(each)
    context.run_callbacks()
    assert called == [context]
    assert "in a callback" in caplog.text
