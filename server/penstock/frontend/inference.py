"""ModelInfer and ModelStreamInfer: bytes in, bytes out, as little Python as can be between."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from penstock.core import Caller, Responses, StreamReply, deadline_ns, encode_stream_error
from penstock.errors import Code, CoreError, UnavailableError
from penstock.frontend.gate import Gate
from penstock.frontend.readiness import Readiness
from penstock.frontend.status import abort
from penstock.frontend.stream import InferStream

__all__ = ["InferenceCore", "InferenceHandlers"]


class InferenceCore(Protocol):
    """What of `penstock.core.Core` infers."""

    async def infer(self, request: bytes, deadline: int = 0, caller: Caller | None = None) -> bytes:
        """Response bytes, or CoreError."""

    def stream_infer(
        self, request: bytes, deadline: int = 0, caller: Caller | None = None
    ) -> Coroutine[Any, Any, StreamReply | Responses]:
        """The reply to one request of a stream, or its replies."""


class InferenceHandlers:
    """The two RPCs that infer.

    Threading: confined to the event loop.
    Ownership: borrows the core, the readiness and the gate.
    """

    def __init__(
        self, core: InferenceCore, readiness: Readiness, gate: Gate, max_inflight_per_stream: int
    ) -> None:
        self._infer = core.infer
        self._core = core
        self._readiness = readiness
        self._gate = gate
        self._max_inflight_per_stream = max_inflight_per_stream

    async def model_infer(self, request: bytes, context: Any) -> bytes:
        """One request, one response."""
        try:
            gate = self._gate
            caller = await gate.caller("inference", context) if gate.is_active else None
            return await self._infer(request, deadline_ns(context.time_remaining()), caller)
        except Exception as error:
            await abort(context, self._at_start(error), "ModelInfer")

    async def model_stream_infer(self, _requests: object, context: Any) -> None:
        """Requests and their responses on one stream; see `InferStream`."""
        try:
            caller = await self._gate.authorize("inference", context)
            stream = InferStream(
                infer=self._stream_infer(deadline_ns(context.time_remaining()), caller),
                context=context,
                max_inflight=self._max_inflight_per_stream,
                closing=self._readiness.wait_closing,
            )
            await stream.run()
        except Exception as error:
            await abort(context, error, "ModelStreamInfer")

    def _stream_infer(
        self, deadline: int, caller: Caller | None
    ) -> Callable[[bytes], Coroutine[Any, Any, StreamReply | Responses]]:
        """How one request of a stream is run; a token may have to be verified again meanwhile."""

        async def infer(request: bytes) -> StreamReply | Responses:
            try:
                await self._gate.recognise("inference", caller)
            except CoreError as error:
                after_ms = -1 if error.retry_after_ms is None else error.retry_after_ms
                payload = encode_stream_error(error.message, "", "", "")
                return StreamReply(payload, int(error.code), error.message, after_ms)
            return await self._core.stream_infer(request, deadline, caller)

        if caller is None:
            return lambda request: self._core.stream_infer(request, deadline)
        return infer

    def _at_start(self, error: Exception) -> Exception:
        """A model that is unknown while models are still being loaded is worth a retry."""
        if isinstance(error, CoreError) and error.code is Code.NOT_FOUND:
            if not self._readiness.has_started:
                return UnavailableError(f"the server is still loading models: {error.message}")
        return error
