"""The server of the native transport: handlers of every kind, over a core of Python."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tests.support.fake_transport import LATE, LEFT, FakeCall, FakeTransport, in_seconds

from penstock.frontend.native_server import NativeServer

Context = Any
OK, UNKNOWN, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 2, 12, 13, 14
LIMIT = 1000


def serve(server: NativeServer, handler: Any, name: str = "M") -> None:
    server.add_registered_method_handlers("s.S", {name: handler})


def unary(behaviour: Any, **codecs: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(behaviour, **codecs)


async def answer_of(call: FakeCall) -> tuple[list[bytes], int, str]:
    """What the client gets."""
    await call.over.wait()
    assert call.status is not None
    return call.written, call.status[0], call.status[1]


async def join(texts: AsyncIterator[bytes], _context: Context) -> bytes:
    return b"+".join([text async for text in texts])


async def spell(text: bytes, _context: Context) -> AsyncIterator[bytes]:
    for letter in text:
        yield bytes([letter])


async def echo_all(texts: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
    async for text in texts:
        yield text + b"!"


async def spell_by_hand(text: bytes, context: Context) -> None:
    for letter in text:
        await context.write(bytes([letter]))


async def echo_by_hand(_texts: Any, context: Context) -> None:
    while (text := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        await context.write(text + b"!")


async def shout(text: bytes, _context: Context) -> bytes:
    return text.upper()


@pytest.mark.parametrize(
    ("handler", "sent", "expected"),
    [
        (grpc.unary_unary_rpc_method_handler(shout), [b"ab"], [b"AB"]),
        (grpc.stream_unary_rpc_method_handler(join), [b"a", b"b"], [b"a+b"]),
        (grpc.stream_unary_rpc_method_handler(join), [], [b""]),
        (grpc.unary_stream_rpc_method_handler(spell), [b"ab"], [b"a", b"b"]),
        (grpc.unary_stream_rpc_method_handler(spell_by_hand), [b"ab"], [b"a", b"b"]),
        (grpc.stream_stream_rpc_method_handler(echo_all), [b"a", b"b"], [b"a!", b"b!"]),
        (grpc.stream_stream_rpc_method_handler(echo_by_hand), [b"a", b"b"], [b"a!", b"b!"]),
    ],
)
async def test_every_kind_of_method_is_answered(
    server: NativeServer,
    core: FakeTransport,
    handler: Any,
    sent: list[bytes],
    expected: list[bytes],
) -> None:
    serve(server, handler)
    call = core.call("/s.S/M").send(*sent, end=True)
    assert await answer_of(call) == (expected, OK, "")


async def test_messages_are_made_of_bytes_and_into_bytes(
    server: NativeServer, core: FakeTransport
) -> None:
    async def double(number: int, _context: Context) -> int:
        return 2 * number

    encode = str.encode
    handler = unary(double, request_deserializer=int, response_serializer=lambda n: encode(str(n)))
    serve(server, handler)
    assert await answer_of(core.call("/s.S/M").send(b"21", end=True)) == ([b"42"], OK, "")


async def test_generic_handler_is_asked_where_no_name_is_registered(
    server: NativeServer, core: FakeTransport
) -> None:
    asked = []

    class Generic(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
        def service(self, details: Any) -> Any:
            asked.append((details.method, details.invocation_metadata))
            return unary(shout) if details.method == "/g.G/M" else None

    server.add_generic_rpc_handlers((Generic(),))
    metadata = (("k", "v"),)
    call = core.call("/g.G/M", metadata=metadata).send(b"a", end=True)
    assert await answer_of(call) == ([b"A"], OK, "")
    other = core.call("/g.G/Other").send(b"a", end=True)
    assert await answer_of(other) == ([], UNIMPLEMENTED, "Method not found!")
    assert asked == [("/g.G/M", metadata), ("/g.G/Other", ())]


async def test_generic_handler_must_be_one(server: NativeServer) -> None:
    with pytest.raises(AttributeError, match="GenericRpcHandler"):
        server.add_generic_rpc_handlers((object(),))


@pytest.mark.parametrize(
    ("sent", "text"), [([], "takes one message, got none"), ([b"1", b"2"], "one message, got more")]
)
async def test_unary_call_has_one_message(
    server: NativeServer, core: FakeTransport, sent: list[bytes], text: str
) -> None:
    called = []

    async def handle(request: bytes, _context: Context) -> bytes:
        called.append(request)
        return b""

    serve(server, unary(handle))
    written, code, details = await answer_of(core.call("/s.S/M").send(*sent, end=True))
    assert (written, code) == ([], UNIMPLEMENTED) and text in details
    assert called == []


async def test_exception_is_unknown_with_its_text_and_is_logged(
    server: NativeServer, core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: bytes, _context: Context) -> bytes:
        raise RuntimeError("no luck")

    serve(server, unary(fail))
    answer = await answer_of(core.call("/s.S/M").send(b"", end=True))
    assert answer == ([], UNKNOWN, "Unexpected <class 'RuntimeError'>: no luck")
    assert "Unexpected [RuntimeError] raised by servicer method [/s.S/M]" in caplog.text
    assert "Traceback" in caplog.text


async def test_exception_keeps_the_code_that_was_set(
    server: NativeServer, core: FakeTransport
) -> None:
    async def fail(_request: bytes, context: Context) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        raise KeyError("k")

    serve(server, unary(fail))
    _, code, _ = await answer_of(core.call("/s.S/M").send(b"", end=True))
    assert code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_request_that_cannot_be_read_is_unknown(
    server: NativeServer, core: FakeTransport
) -> None:
    serve(server, unary(shout, request_deserializer=int))
    _, code, details = await answer_of(core.call("/s.S/M").send(b"x", end=True))
    assert code == UNKNOWN and "invalid literal" in details


async def test_handler_that_would_block_the_loop_is_refused(
    server: NativeServer, core: FakeTransport
) -> None:
    serve(server, unary(lambda request, context: request))
    _, code, details = await answer_of(core.call("/s.S/M").send(b"x", end=True))
    assert code == UNKNOWN and "expected a function that is async" in details


@pytest.mark.parametrize("reason", [LEFT, LATE])
async def test_client_that_leaves_cancels_the_handler(
    server: NativeServer, core: FakeTransport, reason: int
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()
    states = []

    async def wait(_request: bytes, context: Context) -> bytes:
        context.add_done_callback(lambda it: states.append((it.done(), it.cancelled())))
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    serve(server, unary(wait))
    call = core.call("/s.S/M").send(b"", end=True)
    await begun.wait()
    (task,) = server.tasks
    call.leave(reason)
    await cancelled.wait()
    await asyncio.wait({task})
    assert not server.tasks
    assert call.status is None
    assert states == [(True, True)]


async def test_handler_that_cancels_itself_ends_the_call_as_cancelled(
    server: NativeServer, core: FakeTransport
) -> None:
    async def give_up(_request: bytes, _context: Context) -> bytes:
        raise asyncio.CancelledError

    serve(server, unary(give_up))
    _, code, _ = await answer_of(core.call("/s.S/M").send(b"", end=True))
    assert code == grpc.StatusCode.CANCELLED.value[0]


async def test_message_to_a_client_that_has_left_is_no_news(
    server: NativeServer, core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def insist(_request: bytes, context: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await context.write(b"too late")

    serve(server, grpc.unary_stream_rpc_method_handler(insist))
    call = core.call("/s.S/M").send(b"", end=True)
    await begun.wait()
    (task,) = server.tasks
    call.leave()
    await asyncio.wait({task})
    assert call.written == []
    assert "Traceback" not in caplog.text


async def test_generator_is_closed_when_its_client_leaves_a_write(
    server: NativeServer, core: FakeTransport
) -> None:
    begun = asyncio.Event()
    order = []

    async def endless(_request: bytes, context: Context) -> AsyncIterator[bytes]:
        context.add_done_callback(lambda _: order.append("done"))
        try:
            while True:
                begun.set()
                yield b"x"
        finally:
            order.append("closed")

    serve(server, grpc.unary_stream_rpc_method_handler(endless))
    call = core.call("/s.S/M", is_slow=True).send(b"", end=True)
    await begun.wait()
    assert call.written
    (task,) = server.tasks
    call.leave()
    await asyncio.wait({task})
    assert order == ["closed", "done"]


@pytest.mark.parametrize("details", ["lone \udc80", 7, b"bytes"])
async def test_details_that_no_status_can_hold_are_made_to_fit(
    server: NativeServer, core: FakeTransport, details: Any
) -> None:
    async def refuse(_request: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, details)
        return b""

    serve(server, unary(refuse))
    _, code, text = await answer_of(core.call("/s.S/M").send(b"", end=True))
    assert code == grpc.StatusCode.NOT_FOUND.value[0]
    assert text == str(details).replace("\udc80", "?")


async def test_exception_without_a_text_ends_the_call_all_the_same(
    server: NativeServer, core: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def fail(_request: bytes, _context: Context) -> bytes:
        raise Unspeakable

    serve(server, unary(fail))
    answer = await answer_of(core.call("/s.S/M").send(b"", end=True))
    assert answer == ([], UNKNOWN, "")
    assert "given up without a reason" in caplog.text


async def test_deadline_is_told(server: NativeServer, core: FakeTransport) -> None:
    left = []

    async def note(_request: bytes, context: Context) -> bytes:
        left.append(context.time_remaining())
        return b""

    serve(server, unary(note))
    for deadline_ns in (0, in_seconds(60), in_seconds(-1)):
        await core.call("/s.S/M", deadline_ns=deadline_ns).send(b"", end=True).over.wait()
    none, some, past = left
    assert none is None and 0 < some <= 60 and past == 0
