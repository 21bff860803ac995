"""The asyncio face of the native core, and the only importer of `_core`.

Requests and responses are protobuf bytes. What a few turns of the loop bring in is handed over as
one: a quick model's batch then runs right here, another's on its instances, which complete
requests without the GIL and make one eventfd readable per batch. Either way each outcome goes to
the future that waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any

from penstock import _core
from penstock._core import (
    Access,
    AccessPolicy,
    Call,
    Caller,
    InputSpec,
    LoadedModel,
    OutputSpec,
    Principal,
    QueuePolicy,
    TensorSpec,
    Version,
    VersionSpec,
    encode_stream_error,
    set_logging,
)
from penstock.errors import Code, core_error

__all__ = [
    "Access",
    "AccessPolicy",
    "Call",
    "CallEvent",
    "Caller",
    "Core",
    "HAS_TRANSPORT",
    "InputSpec",
    "LoadedModel",
    "OutputSpec",
    "Principal",
    "QueuePolicy",
    "StreamReply",
    "TensorSpec",
    "Version",
    "VersionSpec",
    "encode_stream_error",
    "set_logging",
]

HAS_TRANSPORT = _core.HAS_TRANSPORT
"""Whether the core was built with the native transport."""


class CallEvent(IntEnum):
    """What happened to a call of the native transport: the second of an event's three."""

    STARTED = 0
    MESSAGE = 1
    HALF_CLOSED = 2
    WRITTEN = 3
    CLOSED = 4
    VERIFY = 5


# A gRPC call takes about four turns of the loop: calls that are under way together reach the core
# a few turns apart. They are handed over when this many turns brought no further request (that is
# microseconds when the loop has nothing else to do), or when this many requests are held.
_QUIET_TURNS = 6
_MAX_HELD = 16


@dataclass(frozen=True, slots=True)
class StreamReply:
    """One reply on a ModelStreamInfer stream.

    Attributes:
        payload: bytes of a ModelStreamInferResponse, for failures too.
        code: gRPC canonical code of the request; 0 = OK.
        message: why it failed; empty when OK.
        retry_after_ms: when to try again; negative = unknown.
    """

    payload: bytes
    code: int
    message: str
    retry_after_ms: int = -1


def deadline_ns(time_remaining_s: float | None) -> int:
    """A gRPC deadline as the core wants it.

    Args:
        time_remaining_s: seconds left, None or infinite for no deadline.

    Returns:
        Nanoseconds on the monotonic clock; 0 = none.
    """
    if time_remaining_s is None or time_remaining_s > 1e9:
        return 0
    return max(1, time.monotonic_ns() + int(time_remaining_s * 1e9))


class Core:
    """The engine, seen from the event loop.

    Confined to the loop it was started on, but for the blocking calls that `run` sends to threads.
    Life: constructed -> start -> ... -> close.
    """

    def __init__(
        self,
        *,
        backend_directories: Sequence[str],
        max_inflight_requests: int = 0,
        max_request_bytes: int = 0,
        allow_client_shm: bool = False,
        access: AccessPolicy | None = None,
    ) -> None:
        self.engine = _core.Engine(
            backend_directories=backend_directories,
            max_inflight_requests=max_inflight_requests,
            max_request_bytes=max_request_bytes,
            allow_client_shm=allow_client_shm,
            access=access,
        )
        self.access: Access = self.engine.access
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0  # requests queued since the last flush
        self._quiet_turns = 0  # turns of the loop since the last one was queued

    def start(self) -> None:
        """Begins to read completions on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.engine.completion_fd, self._on_readable)

    async def close(self, timeout_s: float = 30.0) -> bool:
        """Fails what is queued, joins the core's threads, delivers the last completions.

        Returns:
            Whether every thread ended in time; if not, the process must not wait for them.
        """
        has_ended: bool = await self.run(self.engine.shutdown, timeout_s)
        if self._loop is not None:
            self._loop.remove_reader(self.engine.completion_fd)
            self._on_readable()
            self._loop = None
        return has_ended

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs one of the core's blocking calls in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, partial(function, *args, **kwargs))

    async def infer(self, request: bytes, deadline: int = 0, caller: Caller | None = None) -> bytes:
        """Runs a ModelInferRequest.

        Args:
            request: its bytes.
            deadline: as `deadline_ns` gives it; 0 = none.
            caller: who asks, where an access policy wants to know.

        Returns:
            Bytes of the ModelInferResponse.

        Raises:
            CoreError: why there is none.
        """
        outcome = await self._submit(request, deadline, False, caller)
        if isinstance(outcome, bytes):
            return outcome
        raise core_error(outcome.code, outcome.message, outcome.retry_after_ms)

    async def stream_infer(
        self, request: bytes, deadline: int = 0, caller: Caller | None = None
    ) -> StreamReply:
        """Runs one request of a stream; a failure is a reply, not an exception."""
        outcome = await self._submit(request, deadline, True, caller)
        return StreamReply(outcome, 0, "") if isinstance(outcome, bytes) else outcome

    def make_transport(self, **options: Any) -> _core.Transport:
        """Serves this engine; only where HAS_TRANSPORT."""
        return _core.Transport(self.engine, **options)

    def infer_stats(self) -> Mapping[str, Any]:
        """Engine-wide counters."""
        return self.engine.stats()

    def check_shared_memory(self) -> None:
        """Raises UnimplementedError unless clients may register shared memory."""
        self.engine.shared_memory.check_allowed()

    async def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Gives a part of the shared memory object `key` a name for requests to use."""
        register = self.engine.shared_memory.register
        await self.run(register, name=name, key=key, offset=offset, byte_size=byte_size)

    async def unregister_region(self, name: str) -> None:
        """Forgets a name, or with "" all; requests that use the region go on."""
        await self.run(self.engine.shared_memory.unregister, name)

    def regions(self, name: str) -> Sequence[tuple[str, str, int, int]]:
        """(name, key, offset, byte_size) of every registered region, or of the one of the name."""
        return self.engine.shared_memory.regions(name)

    async def _submit(
        self, request: bytes, deadline: int, stream: bool, caller: Caller | None
    ) -> bytes | StreamReply:
        """The response's bytes, or why there is none."""
        assert self._loop is not None, "Core.start comes first"
        future: asyncio.Future[bytes | StreamReply] = self._loop.create_future()
        call = self.engine.infer(request, deadline, future, stream, caller)
        self._held += 1
        self._quiet_turns = 0
        if self._held == 1:
            self._loop.call_soon(self._turn)
        try:
            outcome = await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        if isinstance(outcome, StreamReply) and outcome.code == Code.RESOURCE_EXHAUSTED:
            return replace(outcome, retry_after_ms=call.retry_after_ms())
        return outcome

    def _turn(self) -> None:
        """Flushes once the loop has gone quiet or has brought in enough for one batch."""
        if self._loop is None:  # closed meanwhile: the core has ended what was held
            return
        self._quiet_turns += 1
        if self._held < _MAX_HELD and self._quiet_turns < _QUIET_TURNS:
            self._loop.call_soon(self._turn)
            return
        self._held = 0
        self._deliver(self.engine.flush())

    def _on_readable(self) -> None:
        self._deliver(self.engine.take_completions())

    def _deliver(self, completions: Sequence[_core.Completion]) -> None:
        for tag, code, payload, message in completions:
            future: asyncio.Future[bytes | StreamReply] = tag  # type: ignore[assignment]
            if future.done():  # its caller has gone
                continue
            if code == 0:
                future.set_result(payload or b"")
            else:
                future.set_result(StreamReply(payload or b"", code, message or ""))
