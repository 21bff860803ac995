"""The servicer context of the native transport: what grpc.aio gives to handlers, the same way."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc

from penstock.frontend.native_call import CallPipe, Metadata

__all__ = ["NativeContext"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# What names a client, as gRPC chooses it: the first of these that its certificate has.
_IDENTITIES = ("x509_subject_alternative_name", "x509_common_name")

_log = logging.getLogger(__name__)


class NativeContext(grpc.aio.ServicerContext[Any, Any]):
    """One call, as its handler sees it.

    Threading: confined to the event loop.
    Ownership: borrows the pipe.
    Lifecycle: until a status was sent (`finish`, `fail`, `abort`) or the call was closed.
    """

    def __init__(
        self,
        pipe: CallPipe,
        *,
        max_message_bytes: int,
        deserialize: Callable[[bytes], Any] | None = None,
        serialize: Callable[[Any], bytes] | None = None,
    ) -> None:
        self.abort_error: grpc.aio.AbortError | None = None
        self._pipe = pipe
        self._call = pipe.call
        self._max_message_bytes = max_message_bytes
        self._deserialize = deserialize
        self._serialize = serialize
        self._callbacks: list[Callable[[], None]] = []
        self._has_headers = False
        self._has_status = False
        self._code: Any = None
        self._details = ""
        self._trailing: Metadata = ()

    # Messages

    async def read(self) -> Any:
        """The next message; grpc.aio.EOF after the last."""
        self.raise_if_over()
        message = await self._pipe.read()
        self.raise_if_over()
        return grpc.aio.EOF if message is None else self.decoded(message)  # type: ignore[attr-defined]

    async def write(self, message: Any) -> None:
        """Sends a message; returns when the next may be sent."""
        self.raise_if_over()
        encoded = await self._encoded(message)
        self._has_headers = True
        await self._pipe.write(encoded)

    async def finish_with(self, message: Any) -> None:
        """Sends the one response and the status; no response where the status is an error."""
        self.raise_if_over()
        if _number(self._code) == 0:
            encoded = await self._encoded(message)
            await self._pipe.idle()
            self.raise_if_over()
            self._has_headers = True
            self._pipe.write_last(encoded)
        self.finish()

    def decoded(self, message: bytes) -> Any:
        """As the method's deserialiser has it; bytes where there is none."""
        return message if self._deserialize is None else self._deserialize(message)

    async def _encoded(self, message: Any) -> bytes:
        encoded = message if self._serialize is None else self._serialize(message)
        if not isinstance(encoded, bytes):
            raise TypeError(f"a message of {self._call.path} is a {type(encoded).__name__}")
        if len(encoded) > self._max_message_bytes:
            sizes = f"({len(encoded)} vs. {self._max_message_bytes})"
            text = f"Sent message larger than max {sizes}"
            await self.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return encoded

    # The status

    async def abort(
        self, code: Any, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:  # `Any`: as grpc.aio, numbers are taken, and pairs in whatever holds them
        """Ends the call with a status by raising grpc.aio.AbortError, which is not to be caught."""
        if self.abort_error is not None:
            raise grpc.aio.UsageError("Abort already called!")
        if _number(code) == 0:
            raise grpc.aio.UsageError("a call cannot be aborted with the status OK")
        self.raise_if_over()
        if trailing_metadata:
            self._trailing = _checked(trailing_metadata)
        self._code = code
        self._details = details or self._details
        self.abort_error = grpc.aio.AbortError("Locally aborted.")
        self.finish()
        raise self.abort_error

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """`abort` with what the status holds."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def fail(self, error: BaseException) -> None:
        """Ends the call with what a handler has raised, unless a status was sent."""
        if self._has_status or self._pipe.is_closed:
            return
        if _number(self._code) == 0:
            self._code = grpc.StatusCode.UNKNOWN
        self._details = f"Unexpected {type(error)}: {error}"
        self.finish()

    def cancel(self) -> None:
        """Ends the call as cancelled, unless a status was sent."""
        if not self._has_status:
            self._code, self._details = grpc.StatusCode.CANCELLED, ""
            self.finish()

    def finish(self) -> None:
        """Ends the call with the code, details and metadata that were set."""
        self._call.finish(_number(self._code), _sendable(self._details), self._trailing)
        self._has_status = True

    def raise_if_over(self) -> None:
        """Raises what stops a handler that goes on after the status was sent."""
        if self.abort_error is not None:
            raise self.abort_error
        if self._has_status:
            raise grpc.aio.UsageError("RPC already finished.")

    def set_code(self, code: Any) -> None:
        """Of the status that the call will end with."""
        _number(code)
        self._code = code

    def set_details(self, details: str) -> None:
        """Of the status that the call will end with."""
        self._details = details

    def code(self) -> Any:
        """What was set; None before."""
        return self._code

    def details(self) -> str:
        """What was set."""
        return self._details

    # Metadata

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Sends headers, before any message."""
        self.raise_if_over()
        if self._has_headers:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        checked = _checked(metadata)
        self._has_headers = True
        self._call.send_initial_metadata(checked)

    def set_trailing_metadata(self, metadata: Any) -> None:
        """What will go with the status."""
        self._trailing = _checked(metadata)

    def trailing_metadata(self) -> Any:
        """What was set."""
        return self._trailing

    def invocation_metadata(self) -> Any:
        """What the client sent."""
        return self._call.metadata

    # The client

    def peer(self) -> str:
        """Its address, as gRPC writes it."""
        return self._call.peer

    def connection(self) -> str:
        """Tells its connection from all others, which its address may not: not gRPC's."""
        return self._call.connection

    def peer_identities(self) -> Iterable[bytes] | None:
        """The alternative names of its certificate, or its common name; None without one."""
        key = self.peer_identity_key()
        return None if key is None else self.auth_context()[key]

    def peer_identity_key(self) -> str | None:
        """Of what kind `peer_identities` are."""
        known = {key for key, _ in self._call.auth_properties}
        return next((key for key in _IDENTITIES if key in known), None)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS tells of the client, and its certificate where it showed one."""
        context: dict[str, list[bytes]] = {}
        for key, value in self._call.auth_properties:
            context.setdefault(key, []).append(value)
        return context

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None, as grpc.aio has it
        """Seconds to the deadline; None where there is none."""
        if self._call.deadline_ns == 0:
            return None
        return max(0.0, (self._call.deadline_ns - time.monotonic_ns()) / 1e9)

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing: what Python answers is small and goes as it is."""
        if self._has_headers:
            raise RuntimeError(
                "Compression setting must be specified before sending initial metadata"
            )

    def disable_next_message_compression(self) -> None:
        """Nothing: none is compressed."""

    # The end

    def done(self) -> bool:
        """Whether a status was sent, or nobody is there to get one."""
        return self._has_status or self._pipe.is_closed

    def cancelled(self) -> bool:
        """Whether the client left first, or the status is CANCELLED."""
        left = self._pipe.is_closed and not self._has_status
        return left or _number(self._code) == grpc.StatusCode.CANCELLED.value[0]

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Has `callback` called with this context after the handler's end."""
        self._callbacks.append(functools.partial(callback, self))

    def run_callbacks(self) -> None:
        """Calls what `add_done_callback` was given."""
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                _log.exception("Error in callback for method [%s]", self._call.path)


def _number(code: Any) -> int:
    """The code on the wire; None = OK."""
    if code is None:
        return 0
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    if number not in _CODES:
        raise ValueError(f"Invalid status code {code!r}")
    return int(number)


def _sendable(details: Any) -> str:
    """The text of a status, which handlers make of anything, as the wire can carry it."""
    return str(details).encode(errors="replace").decode()


def _checked(metadata: Any) -> Metadata:
    """The pairs, which the wire can carry.

    Raises:
        ValueError: a key or a value that no header can be.
    """
    pairs = tuple((key, value) for key, value in metadata or ())
    for key, value in pairs:
        is_binary = key.endswith("-bin")
        if not key or not all(each in _KEY_CHARACTERS for each in key):
            raise ValueError(f"no key of metadata can be {key!r}")
        if isinstance(value, bytes) != is_binary:
            kind = "bytes" if is_binary else "str"
            raise ValueError(f"metadata {key!r}: expected {kind}, got {type(value).__name__}")
        if isinstance(value, str) and not all(" " <= each <= "~" for each in value):
            raise ValueError(f"metadata {key!r}: expected printable ASCII, got {value!r}")
    return pairs


_KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
