"""The exceptions of penstock_client, one tree.

    PenstockError
      + TensorError               an array (or parameter) that cannot be sent; nothing went out
      + ProtocolError             the server answered with something that cannot be read
      + ClientClosedError         the client was used after close()
      + SharedMemoryError         shared memory that cannot be made, opened or used
      + RpcError                  the call failed; carries code, message, details, ...
          + CancelledError            + NotFoundError             + OutOfRangeError
          + UnknownError              + AlreadyExistsError        + UnimplementedError
          + InvalidArgumentError      + PermissionDeniedError     + InternalError
          + DeadlineExceededError     + ResourceExhaustedError    + UnavailableError
          + UnauthenticatedError      + FailedPreconditionError   + DataLossError
          + StreamResponseError       + AbortedError

TensorError is also a ValueError, SharedMemoryError an OSError, DeadlineExceededError a
TimeoutError. Every one of them can be pickled, so they cross process pools and job queues whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import grpc

Details = Mapping[str, str | bytes]


class PenstockError(Exception):
    """The root: `except PenstockError` catches everything this package raises by itself."""


class TensorError(PenstockError, ValueError):
    """An array or parameter cannot be expressed on the wire; nothing was sent.

    The message names the model, the tensor and what was expected.
    """


class ProtocolError(PenstockError):
    """The server's answer breaks the protocol, for instance a byte count that denies its shape."""


class ClientClosedError(PenstockError, RuntimeError):
    """A method was called after `close()`, or after the `with` block ended."""


class SharedMemoryError(PenstockError, OSError):
    """The system's shared memory cannot be made or opened, or was used after `close()`."""


class RpcError(PenstockError):
    """A call that did not end OK.

    Attributes:
        code: The gRPC status code; fixed by the subclass.
        message: The server's words (or gRPC's own, when no server was reached).
        details: The call's trailing metadata, keys in lower case; values are bytes for keys
            that end in `-bin`. Of a repeated key, the last value.
        model: The model the call was about, or "".
        request_id: The id the caller gave the request, or "".
        attempts: How many times the call was sent, the first one included.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        details: Details | None = None,
        model: str = "",
        request_id: str = "",
        attempts: int = 1,
    ) -> None:
        """See the class for what each argument means."""
        super().__init__(message)
        self.message = message
        self.details: Details = dict(details) if details else {}
        self.model = model
        self.request_id = request_id
        self.attempts = attempts

    def __str__(self) -> str:
        """The code and the message, then what the error knows of its request."""
        facts = [f"model '{self.model}'"] if self.model else []
        if self.request_id:
            facts.append(f"request '{self.request_id}'")
        if self.attempts > 1:
            facts.append(f"{self.attempts} attempts")
        return f"{self.code.name}: {self.message}" + (f" [{', '.join(facts)}]" if facts else "")


class CancelledError(RpcError):
    """The call was cancelled, by the server or on the way (not by asyncio: that one is its own)."""

    code = grpc.StatusCode.CANCELLED


class UnknownError(RpcError):
    """The peer gave no usable reason."""

    code = grpc.StatusCode.UNKNOWN


class InvalidArgumentError(RpcError):
    """The model does not take such a request: wrong name, datatype, shape, batch size, ..."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class DeadlineExceededError(RpcError, TimeoutError):
    """The caller's deadline passed before the answer came."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFoundError(RpcError):
    """No such model or version."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExistsError(RpcError):
    """What was to be created exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDeniedError(RpcError):
    """The caller is known but may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ResourceExhaustedError(RpcError):
    """A limit was passed: message size, connections, rate."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPreconditionError(RpcError):
    """The server's state does not allow this."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AbortedError(RpcError):
    """The call lost a race with another one."""

    code = grpc.StatusCode.ABORTED


class OutOfRangeError(RpcError):
    """A position is past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE


class UnimplementedError(RpcError):
    """The server has no such method, or not for this model."""

    code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(RpcError):
    """The server or the model failed."""

    code = grpc.StatusCode.INTERNAL


class UnavailableError(RpcError):
    """Not now: no connection, a full queue, a queue time-out, a draining server, or a refused mode.

    The only code that is retried.
    """

    code = grpc.StatusCode.UNAVAILABLE


class DataLossError(RpcError):
    """Data was lost for good."""

    code = grpc.StatusCode.DATA_LOSS


class UnauthenticatedError(RpcError):
    """The caller did not prove who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class StreamResponseError(RpcError):
    """One request of a stream failed; the stream itself lives on.

    The protocol carries only the text of such a failure, so the code is always UNKNOWN.
    """

    code = grpc.StatusCode.UNKNOWN


_BY_CODE: dict[grpc.StatusCode, type[RpcError]] = {
    cls.code: cls for cls in RpcError.__subclasses__() if cls is not StreamResponseError
}


def error_class(code: grpc.StatusCode) -> type[RpcError]:
    """The class for a status code; every code but OK has one.

    Raises:
        KeyError: For OK, which is no error.
    """
    return _BY_CODE[code]
