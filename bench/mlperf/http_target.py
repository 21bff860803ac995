"""A server's HTTP gateway as a target: binary tensor data on keep-alive connections, asyncio."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import uvloop
from mlperf.lasting_thread import on_lasting_thread
from mlperf.targets import (
    Completion,
    Counters,
    NativeSettings,
    OnDone,
    _nobody,
    ask_name,
    remote_counters,
)
from mlperf.workloads import Array, Workload

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_HEAD = re.compile(rb"\r\ninference-header-content-length: *(\d+)", re.I)
_PREFIX_BYTES = 4  # length of the JSON, before a payload


class _Connection(asyncio.Protocol):
    """One request at a time. Confined to the loop."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self.entry: tuple[int, int] | None = None  # tag and sample under way
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass

    def send(self, entry: tuple[int, int], message: bytes) -> None:
        assert self._transport is not None
        self.entry = entry
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end])
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(self._received) < end + 4 + size:
            return
        body = bytes(self._received[end + 4 : end + 4 + size])
        self._received.clear()
        assert self.entry is not None
        (tag, _), self.entry = self.entry, None
        json_size = _HEAD.search(head)
        if head[9:12] != b"200":
            text = f"HTTP {head[9:12].decode()}: {body[:200].decode(errors='replace')}"
            self._target.ended(self, Completion(tag, failure=text))
        else:
            prefix = (int(json_size[1]) if json_size else size).to_bytes(_PREFIX_BYTES, "big")
            self._target.ended(self, Completion(tag, prefix + body))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)
        self._target.lost(self)


class HttpTarget:
    """A gateway. What finds no free connection waits for one.

    A server may close a connection that was idle for some seconds: it is opened again, and what was
    just on its way is sent once more. The target has gone when it takes no connection.
    """

    def __init__(
        self, workload: Workload, address: str, grpc_address: str, connections: int = 32
    ) -> None:
        """Connects; OSError where nobody listens. Counters come from `grpc_address`."""
        self.on_done: OnDone = _nobody
        self._workload = workload
        self._grpc_address = grpc_address
        self._messages = [
            (
                f"POST /v2/models/{workload.name}/infer HTTP/1.1\r\nHost: {address}\r\n"
                f"Content-Length: {len(body)}\r\nInference-Header-Content-Length: {head}\r\n\r\n"
            ).encode()
            + body
            for head, body in workload.http_requests()
        ]
        self._idle: list[_Connection] = []
        self._connections: list[_Connection] = []
        self._waiting: deque[tuple[int, int]] = deque()
        self._again: set[tuple[int, int]] = set()  # sent twice
        self._opening: set[asyncio.Task[None]] = set()
        self._is_gone = False
        self._is_closing = False
        self._loop = uvloop.new_event_loop()
        self._thread = on_lasting_thread(self._loop.run_forever)
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        opening = self._connect(connections)
        try:
            asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        except BaseException:
            self.close()
            raise

    async def _connect(self, connections: int) -> None:
        for _ in range(connections):
            self._idle.append(await self._open())

    async def _open(self) -> _Connection:
        make = self._loop.create_connection
        _, made = await make(lambda: _Connection(self), self._host, self._port)
        self._connections.append(made)
        return made

    async def _disconnect(self) -> None:
        self._is_closing = True
        await asyncio.gather(*self._opening)
        for each in self._connections:
            each.close()
        await asyncio.gather(*(each.ended for each in self._connections))

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        """Hands them to the loop."""
        self._loop.call_soon_threadsafe(self._send, entries)

    def _send(self, entries: Sequence[tuple[int, int]]) -> None:
        self._waiting.extend(entries)
        while self._waiting and self._idle:
            entry = self._waiting.popleft()
            self._idle.pop().send(entry, self._messages[entry[1]])
        if self._is_gone and self._waiting:
            failed = [self._gone(tag) for tag, _ in self._waiting]
            self._waiting.clear()
            self.on_done(failed)

    def _gone(self, tag: int) -> Completion:
        return Completion(tag, failure="connection lost: by the gateway", is_lost=True)

    def ended(self, connection: _Connection, completion: Completion) -> None:
        """A connection has its answer and takes the next request."""
        self._idle.append(connection)
        self._send(())
        self.on_done([completion])

    def lost(self, connection: _Connection) -> None:
        """A connection has ended: another takes its place."""
        if self._is_closing:
            return
        self._connections.remove(connection)
        with suppress(ValueError):
            self._idle.remove(connection)
        opening = self._loop.create_task(self._replace(connection.entry))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _replace(self, entry: tuple[int, int] | None) -> None:
        if entry is not None and entry in self._again:
            self._is_gone = True
        try:
            self._idle.append(await self._open())
        except OSError:
            self._is_gone = True
        if entry is not None and self._is_gone:
            self.on_done([self._gone(entry[0])])
        elif entry is not None:
            self._again.add(entry)
            self._waiting.appendleft(entry)
        self._send(())

    def answer(self, payload: bytes) -> Array:
        """From the response's JSON and bytes."""
        size = int.from_bytes(payload[:_PREFIX_BYTES], "big")
        return self._workload.http_answer(size, payload[_PREFIX_BYTES:])

    def counters(self) -> Counters:
        """The server's statistics."""
        return remote_counters(self._grpc_address, self._workload.name)

    def name(self) -> str:
        """The server's."""
        return ask_name(self._grpc_address)

    def native(self, _module: object, _settings: NativeSettings) -> None:
        """There is no native client of the gateway."""

    def close(self) -> None:
        """Ends the loop and its thread."""
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
