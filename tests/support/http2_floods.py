"""Clients that ask for more than anybody should: floods, bombs, and those that only wait."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain, cycle, islice

from tests.support import raw_http2 as http2
from tests.support.http2_faults import (
    ENDED_CALL,
    HARMLESS,
    LAX,
    MAX_MESSAGE_BYTES,
    MESSAGE,
    Attack,
)
from tests.support.http2_peer import Peer, peer_of
from tests.support.requests import identity_request

SENT = frozenset({"closed", "stalled", "told"})
"""The server puts an end to it, or takes no more."""
BORNE = SENT | HARMLESS
"""It need not: what it costs is bounded, and nobody else notices."""
REFUSED = frozenset({"closed", "reset", "refused"})
ANSWERED = frozenset({"answered"})

_INITIAL_WINDOW = 4


@dataclass(frozen=True)
class Flood(Attack):
    """What a peer does after the preface and empty settings."""

    attack: Callable[[Peer], Awaitable[None]]
    expected: frozenset[str]
    grpcio: frozenset[str] | None = None


_LARGE_REQUEST = http2.message(identity_request([0.5] * 200_000).SerializeToString())
"""800 KB, and so is its answer."""


async def continuations(peer: Peer) -> None:
    """A header block without end: 64 MiB of it."""
    part = http2.frame(http2.CONTINUATION, 0, 1, http2.field("x", "y" * 100) * 150)
    await peer.pour(chain([http2.headers(1, flags=0)], islice(cycle([part]), 4096)), 20)


async def empty_continuations(peer: Peer) -> None:
    """A header block without end, and without anything in it."""
    empty = http2.frame(http2.CONTINUATION, 0, 1)
    await peer.pour(chain([http2.headers(1, flags=0)], islice(cycle([empty]), 200_000)), 5000)


async def rapid_resets(peer: Peer) -> None:
    """Calls that are given up at once: CVE-2023-44487."""
    calls = (http2.headers(stream) + http2.reset_stream(stream) for stream in range(1, 40_001, 2))
    await peer.pour(calls)


async def resets_by_the_server(peer: Peer) -> None:
    """Calls whose fault makes the server reset them: the same, without a reset of ours."""
    faulty = (
        http2.headers(stream) + http2.window_update(stream, 0) for stream in range(1, 40_001, 2)
    )
    await peer.pour(faulty)


async def settings(peer: Peer) -> None:
    """Each wants an acknowledgement; none is read."""
    await peer.pour(islice(cycle([http2.settings((3, 100))]), 200_000), 2000)


async def pings(peer: Peer) -> None:
    """Each wants an answer; none is read."""
    await peer.pour(islice(cycle([http2.frame(http2.PING, 0, 0, bytes(8))]), 200_000), 2000)


async def empty_data(peer: Peer) -> None:
    """Frames that no window counts."""
    nothing = http2.data(1, b"", end=False)
    await peer.pour(chain([http2.headers(1)], islice(cycle([nothing]), 100_000)), 2000)


async def priorities(peer: Peer) -> None:
    """A tree of streams that will never be."""
    frames = (
        http2.frame(http2.PRIORITY, 0, stream, struct.pack(">IB", max(stream - 2, 0), 7))
        for stream in range(1, 100_001, 2)
    )
    await peer.pour(frames, 2000)


async def unknown_frames(peer: Peer) -> None:
    """Kinds that nobody knows are to be passed over."""
    await peer.pour(islice(cycle([http2.frame(0xFB, 0xFF, 1, bytes(100))]), 50_000), 1000)


async def window_updates(peer: Peer) -> None:
    """A window that grows byte by byte."""
    update = http2.window_update(1, 1)
    await peer.pour(chain([http2.headers(1)], islice(cycle([update]), 100_000)), 2000)


async def references(peer: Peer) -> None:
    """HPACK's bomb: 4 KB of header, put into the table once and named 16,000 times."""
    entry = (
        b"\x40\x01x" + b"\x7f" + struct.pack("BB", 0x80 | (3900 - 127) % 128, (3900 - 127) // 128)
    )
    block = http2.header_block() + entry + b"v" * 3900
    await peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block))
    for stream in range(3, 11, 2):
        bomb = http2.header_block() + b"\xbe" * 16_000
        await peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, bomb))


async def huge_list(peer: Peer) -> None:
    """A megabyte of headers that are right one by one."""
    fields = b"".join(http2.field(f"x-{number}", "v" * 100) for number in range(9_000))
    parts = [fields[at : at + 16_000] for at in range(0, len(fields), 16_000)]
    blocks = [http2.headers(1, flags=0)]
    blocks += [http2.frame(http2.CONTINUATION, 0, 1, part) for part in parts]
    await peer.pour([*blocks, http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1)])


async def table_games(peer: Peer) -> None:
    """The table is emptied, filled and emptied again by each of many calls."""
    games = b"\x20\x3f\xe1\x1f"  # to 0, and back to 4096
    entries = b"".join(b"\x40\x03x%02d\x64" % number + b"v" * 100 for number in range(30))
    ends = http2.END_HEADERS | http2.END_STREAM
    block = games + http2.header_block("/no.Such/Thing") + entries
    await peer.pour(http2.frame(http2.HEADERS, ends, stream, block) for stream in range(1, 2001, 2))


async def calls_that_never_end(peer: Peer) -> None:
    """Many more calls at a time than are allowed."""
    await peer.pour(http2.headers(stream) for stream in range(1, 20_001, 2))


async def promises(peer: Peer) -> None:
    """The largest message that is allowed is announced a hundred times; one byte of each comes."""
    start = struct.pack(">BI", 0, MAX_MESSAGE_BYTES) + b"\n"
    await peer.pour(
        http2.headers(stream) + http2.data(stream, start, end=False) for stream in range(1, 201, 2)
    )


async def _ask_for_large_answers(peer: Peer) -> None:
    """By 32 calls, whose answers nothing is given a window for."""
    await peer.send(http2.settings((_INITIAL_WINDOW, 0)))
    for stream in range(1, 65, 2):
        await peer.send(http2.headers(stream))
        await peer.send_body(stream, _LARGE_REQUEST)
        await peer.send(http2.data(stream, b""))


async def slow_reader(peer: Peer) -> None:
    """Large answers, and no window for any of them."""
    await _ask_for_large_answers(peer)


async def slow_reader_of_a_stream(peer: Peer) -> None:
    """One call asks for large answers without end, and none of them is read."""
    await peer.send(http2.settings((_INITIAL_WINDOW, 0)), http2.headers(1, http2.STREAM_INFER))
    for _ in range(512):
        if not await peer.send_body(1, _LARGE_REQUEST):
            break


async def socket_that_is_not_read(peer: Peer) -> None:
    """Large answers and windows for all of them, but nothing is taken from the socket."""
    await _ask_for_large_answers(peer)
    largest = (1 << 31) - 1
    await peer.send(http2.settings((_INITIAL_WINDOW, largest)))
    await peer.send(http2.window_update(0, largest - 65535))


async def byte_by_byte(peer: Peer) -> None:
    """A right call, slowly."""
    for at in range(len(ENDED_CALL)):
        await peer.send(ENDED_CALL[at : at + 1])


async def half_open(peer: Peer) -> None:
    """Connections on which nothing happens, or not enough."""
    beginnings = (
        b"",
        http2.PREFACE[:10],
        http2.PREFACE,
        http2.PREFACE + http2.settings()[:5],
        http2.PREFACE + http2.settings() + http2.headers(1)[:20],
        http2.PREFACE + http2.settings() + http2.headers(1, flags=0),
        http2.PREFACE + http2.settings() + http2.headers(1) + http2.data(1, MESSAGE[:9], end=False),
        http2.PREFACE + http2.settings() + http2.headers(1, http2.STREAM_INFER),
    )
    async with _others(peer.port, 80) as others:
        for other, beginning in zip(others, cycle(beginnings)):
            await other.send(beginning)
        for other in others[::2]:
            await other.end_sending()
        await peer.send(ENDED_CALL)
        assert (await peer.finding(ANSWERED)).outcome == "answered"


async def connections(peer: Peer) -> None:
    """Connections that come and go."""
    for _ in range(20):
        async with _others(peer.port, 20) as others:
            for other in others[::2]:
                await other.greet()
    await peer.send(ENDED_CALL)


@asynccontextmanager
async def _others(port: int, count: int) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(peer_of(port)) for _ in range(count)]


FLOODS = {
    flood.attack.__name__: flood
    for flood in (
        Flood(continuations, SENT),
        Flood(empty_continuations, SENT),
        Flood(rapid_resets, BORNE, LAX),
        Flood(resets_by_the_server, BORNE | REFUSED, LAX),
        Flood(settings, BORNE),
        Flood(pings, SENT),
        Flood(empty_data, BORNE),
        Flood(priorities, BORNE),
        Flood(unknown_frames, HARMLESS),
        Flood(window_updates, BORNE),
        Flood(references, REFUSED),
        Flood(huge_list, REFUSED, LAX),
        Flood(table_games, REFUSED),
        Flood(calls_that_never_end, REFUSED),
        Flood(promises, HARMLESS),
        Flood(slow_reader, HARMLESS),
        Flood(slow_reader_of_a_stream, SENT),
        Flood(socket_that_is_not_read, BORNE | ANSWERED),
        Flood(byte_by_byte, ANSWERED),
        Flood(half_open, ANSWERED),
        Flood(connections, ANSWERED),
    )
}
