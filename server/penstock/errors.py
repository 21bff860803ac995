"""What Penstock raises.

::

    PenstockError                 base of everything below
    ├── CoreError                 a Status of the native core; `.code` is the gRPC canonical code
    │   ├── CancelledError        CANCELLED
    │   ├── UnknownError          UNKNOWN
    │   ├── InvalidArgumentError  INVALID_ARGUMENT
    │   ├── DeadlineExceededError DEADLINE_EXCEEDED
    │   ├── NotFoundError         NOT_FOUND
    │   ├── AlreadyExistsError    ALREADY_EXISTS
    │   ├── PermissionDeniedError PERMISSION_DENIED
    │   ├── ResourceExhaustedError RESOURCE_EXHAUSTED
    │   ├── FailedPreconditionError FAILED_PRECONDITION
    │   ├── AbortedError          ABORTED
    │   ├── OutOfRangeError       OUT_OF_RANGE
    │   ├── UnimplementedError    UNIMPLEMENTED
    │   ├── InternalError         INTERNAL
    │   ├── UnavailableError      UNAVAILABLE
    │   ├── DataLossError         DATA_LOSS
    │   └── UnauthenticatedError  UNAUTHENTICATED
    ├── ConfigError               settings or a model configuration are wrong, see `.faults`
    └── StartupError              the server cannot start (a taken port, an unreadable repository)

The native module raises the same classes (`core_error` is its only way in), and Python code that
must answer a client raises them too: one table in `frontend/` turns the code into a gRPC status.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Code(IntEnum):
    """The gRPC canonical codes, with their wire numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class PenstockError(Exception):
    """Base of everything Penstock raises on purpose."""


class CoreError(PenstockError):
    """Something failed with a gRPC canonical code; the message may be shown to clients.

    Attributes:
        message: one sentence.
        retry_after_ms: how long the caller had better wait before it tries again; None = unknown.
    """

    code: Code = Code.UNKNOWN

    def __init__(self, message: str = "", retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


class CancelledError(CoreError):
    """The caller has gone."""

    code = Code.CANCELLED


class UnknownError(CoreError):
    """A failure without a better name."""

    code = Code.UNKNOWN


class InvalidArgumentError(CoreError):
    """The request does not fit the protocol or the model."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceededError(CoreError):
    """The caller's deadline passed."""

    code = Code.DEADLINE_EXCEEDED


class NotFoundError(CoreError):
    """No such model, version or backend."""

    code = Code.NOT_FOUND


class AlreadyExistsError(CoreError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class PermissionDeniedError(CoreError):
    """The caller may not do that."""

    code = Code.PERMISSION_DENIED


class ResourceExhaustedError(CoreError):
    """A limit of the server is reached."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPreconditionError(CoreError):
    """The state of the server forbids it."""

    code = Code.FAILED_PRECONDITION


class AbortedError(CoreError):
    """Given up in the middle."""

    code = Code.ABORTED


class OutOfRangeError(CoreError):
    """Past the valid range."""

    code = Code.OUT_OF_RANGE


class UnimplementedError(CoreError):
    """Not supported, here or for this model."""

    code = Code.UNIMPLEMENTED


class InternalError(CoreError):
    """The server or a model is at fault."""

    code = Code.INTERNAL


class UnavailableError(CoreError):
    """Not now: overload, drain, a queue timeout or a model that is not ready; worth a retry."""

    code = Code.UNAVAILABLE


class DataLossError(CoreError):
    """Data is gone or corrupt."""

    code = Code.DATA_LOSS


class UnauthenticatedError(CoreError):
    """The caller did not say who it is."""

    code = Code.UNAUTHENTICATED


class ConfigError(PenstockError):
    """Settings or a model configuration are wrong.

    Attributes:
        faults: every fault found, one sentence each, with file and field.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class StartupError(PenstockError):
    """The server cannot start; the message is one line for the operator."""


_BY_CODE: dict[int, type[CoreError]] = {cls.code: cls for cls in CoreError.__subclasses__()}


def core_error(code: int, message: str, retry_after_ms: int = -1) -> CoreError:
    """The exception for a status of the core (never for OK).

    Args:
        code: gRPC canonical code; an unknown number becomes UNKNOWN.
        message: one sentence, fit for clients.
        retry_after_ms: as the status has it; negative = unknown.
    """
    known = retry_after_ms if retry_after_ms >= 0 else None
    return _BY_CODE.get(code, UnknownError)(message, known)
