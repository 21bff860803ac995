"""One connection of the gateway over a fake transport: when it is ended, and with what answer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from penstock.gateway.observed import HttpCounters, Observed, refusals
from penstock.observe.access import Access
from penstock_gateway.options import Options
from penstock_gateway.protocol import CANCEL, LimitedProtocol, make_protocol

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: t\r\n"


class Timers:
    """A loop whose time passes when it is told."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.due: list[tuple[Callable[[], None], asyncio.Event]] = []
        self.create_task = self._loop.create_task
        self.time = self._loop.time

    def call_later(self, _seconds: float, then: Callable[[], None]) -> Any:
        cancelled = asyncio.Event()
        self.due.append((then, cancelled))

        class Handle:
            cancel = staticmethod(cancelled.set)

        return Handle

    def pass_time(self) -> None:
        """All that is due now happens."""
        due, self.due = self.due, []
        for then, cancelled in due:
            if not cancelled.is_set():
                then()


class FakeTransport:
    """Remembers what was written; `unread` is what the client has left in the buffer."""

    def __init__(self) -> None:
        self.written = b""
        self.unread = 0
        self.is_closed = self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, _name: str) -> None:
        return None

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def never(_scope: Any, _receive: Any, _send: Any) -> None:
    await asyncio.get_running_loop().create_future()


def connect(
    app: Any = refuse, on_refused: Any = None, **options: Any
) -> tuple[LimitedProtocol, FakeTransport, Timers]:
    timers, transport = Timers(), FakeTransport()
    made = make_protocol(Options(**options), on_refused)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    protocol = made(config=config, server_state=ServerState(), app_state={}, _loop=timers)
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport, timers


async def finish(protocol: LimitedProtocol) -> None:
    """The tasks of the requests, and what is corked after them."""
    await asyncio.wait(protocol.tasks)
    corked = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(corked.set_result, None)
    await corked


async def test_client_that_reads_slowly_is_kept_and_one_that_stops_is_not() -> None:
    protocol, transport, timers = connect()
    timers.due.clear()  # it is the writing that is looked at
    transport.unread = 100_000
    protocol.pause_writing()
    for left in (90_000, 89_999):
        transport.unread = left
        timers.pass_time()
        assert not transport.is_closed
    timers.pass_time()
    assert transport.is_aborted


async def test_answer_that_is_not_read_does_not_keep_a_connection_that_closes() -> None:
    protocol, transport, timers = connect()
    transport.unread = 10
    protocol.data_received(HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    await finish(protocol)
    protocol.resume_writing()  # little enough is left, and is looked at on
    assert transport.is_closed and not transport.is_aborted
    timers.pass_time()
    assert transport.is_aborted


async def test_head_that_comes_in_pieces_counts_once() -> None:
    head = HEAD + b"X-A: " + b"a" * 700 + b"\r\nContent-Length: 0\r\n\r\n"
    protocol, transport, _ = connect(max_header_bytes=1024)
    for at in range(0, len(head), 50):
        protocol.data_received(head[at : at + 50])
    await finish(protocol)
    assert transport.written.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("rest", [b"", b"zz\r\n"])
async def test_body_of_a_request_that_is_answered_gets_no_second_answer(rest: bytes) -> None:
    protocol, transport, timers = connect(body_timeout_s=0.0)
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await finish(protocol)
    if rest:
        protocol.data_received(rest)
    else:
        timers.pass_time()
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert transport.is_closed


async def test_thousands_of_heads_at_once_are_refused() -> None:
    protocol, transport, _ = connect(never)
    protocol.data_received((HEAD + b"Content-Length: 0\r\n\r\n") * 5000)
    assert transport.is_closed
    assert len(protocol.pipeline) < 100
    protocol.data_received(HEAD * 5000)
    assert len(protocol.pipeline) < 100
    for task in protocol.tasks:
        task.cancel()
    protocol.connection_lost(None)
    assert not protocol.pipeline


async def test_pipelined_body_that_is_not_read_yet_is_not_late() -> None:
    protocol, transport, timers = connect(never, body_timeout_s=0.0)
    protocol.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    protocol.data_received(HEAD + b"Content-Length: 9\r\n\r\nhalf")
    for _ in range(3):
        timers.pass_time()
    assert not transport.is_closed, "what holds the body up is the request before it"
    for task in protocol.tasks:
        task.cancel()
    protocol.connection_lost(None)


async def test_request_whose_client_left_before_it_began_is_cancelled() -> None:
    ended: list[bool] = []

    async def begins_late(scope: Any, _receive: Any, _send: Any) -> None:
        protocol.connection_lost(None)
        scope["extensions"][CANCEL](asyncio.current_task())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append(True)

    protocol, _, _ = connect(begins_late)
    protocol.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    await finish(protocol)
    assert ended == [True]


async def observe(counters: HttpCounters, lines: list[Access], **options: Any) -> Any:
    """A connection to an application that is watched, and reads the body before it answers."""

    class Log:
        write = staticmethod(lines.append)

    async def reads(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"][CANCEL](asyncio.current_task())
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.request":
            await refuse(scope, receive, send)

    log: Any = Log()
    watched = Observed(reads, counters, log)
    return connect(watched, refusals(counters, log), **options)


def answers(counters: HttpCounters) -> dict[tuple[str, str], float]:
    requests, _ = counters.families()
    return {(labels["route"], labels["code"]): value for _, labels, value in requests.samples}


@pytest.mark.parametrize("is_whole", [False, True])
async def test_body_that_is_late_is_one_answer_one_count_and_one_line(is_whole: bool) -> None:
    counters, lines = HttpCounters(), list[Access]()
    protocol, transport, timers = await observe(counters, lines, body_timeout_s=0.0)
    body = b"nine byte" if is_whole else b""  # what has come would prolong the time
    protocol.data_received(HEAD + b"Content-Length: 9\r\n\r\n" + body)
    if not is_whole:
        timers.pass_time()
    await finish(protocol)
    protocol.connection_lost(None)
    status = "413" if is_whole else "408"
    assert transport.written.count(b"HTTP/1.1 ") == 1
    assert answers(counters) == {("other", status): 1}
    assert [(each.method, each.status) for each in lines] == [("POST /v2/models/m/infer", status)]


async def test_client_that_leaves_is_counted_as_one_that_left() -> None:
    counters, lines = HttpCounters(), list[Access]()
    protocol, _, _ = await observe(counters, lines)
    protocol.data_received(HEAD + b"Content-Length: 9\r\n\r\nfour")
    tasks = set(protocol.tasks)
    await asyncio.wait(tasks, timeout=0)
    protocol.connection_lost(None)
    await asyncio.wait(tasks)
    assert answers(counters) == {("other", "left"): 1}
    assert [each.status for each in lines] == ["CANCELLED"]


@pytest.mark.parametrize(
    ("sent", "status"), [(b"\x00\r\n\r\n", "400"), (HEAD + b"X-A: " + b"a" * 5000, "431")]
)
async def test_what_is_refused_before_it_is_a_request_has_a_count_and_a_line(
    sent: bytes, status: str
) -> None:
    counters, lines = HttpCounters(), list[Access]()
    protocol, _, _ = await observe(counters, lines, max_header_bytes=1024)
    protocol.data_received(sent)
    protocol.connection_lost(None)
    assert answers(counters) == {("unread", status): 1}
    assert [(each.method, each.status) for each in lines] == [("unread", status)]
    assert lines[0].sent_bytes > 0
