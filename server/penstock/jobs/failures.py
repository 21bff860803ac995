"""What a job raises, and how it ends.

::

    JobError            the job cannot do what was asked; `.lines`, one fault each
    ├── PlanError       found before the first row: wrong usage, or rows that cannot fit the model
    ├── StoppedError    more rejects than allowed
    ├── NotServedError  the model is not there, or not yet
    └── TemporaryError  may pass by itself: run the job again, it goes on where it was
        └── BusyError   another process is at it
    EngineError         one request failed; `.kind` says what follows
"""

from __future__ import annotations

from enum import Enum, IntEnum

from penstock.errors import Code, PenstockError


class ExitCode(IntEnum):
    """How `penstock batch` ends; TEMPORARY is sysexits' EX_TEMPFAIL, which schedulers know."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTS = 3
    TEMPORARY = 75


class JobError(PenstockError):
    """The job failed.

    Attributes:
        lines: what to tell, one fault per line.
        exit_code: of a process that runs only this job.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class PlanError(JobError):
    """The job was refused before the first row."""

    exit_code = ExitCode.USAGE


class StoppedError(JobError):
    """The job stopped because more rows were rejected than is allowed."""

    exit_code = ExitCode.REJECTS


class TemporaryError(JobError):
    """The job stopped for a reason that may pass; what is committed stays."""

    exit_code = ExitCode.TEMPORARY


class BusyError(TemporaryError):
    """Another process works on the same output."""


class NotServedError(JobError):
    """The model is not served, or not yet."""


class FailureKind(Enum):
    """What follows from the failure of a request."""

    ROWS = "rows"
    """Its rows are to blame: a smaller request may do."""
    RETRY = "retry"
    """The same request may succeed later."""
    FATAL = "fatal"
    """No request of this job can succeed."""


_RETRY = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.ABORTED}
_FATAL = {Code.NOT_FOUND, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED, Code.UNIMPLEMENTED}


class EngineError(PenstockError):
    """A request failed.

    Attributes:
        kind: what follows.
        reason: one sentence with the code's name.
        is_suspect: its rows may be why, though it may be tried again: it took too long, or what
            was to answer is gone.
        waited_s: how long it waited for its turn before it failed: no time of an outage.
    """

    def __init__(
        self, kind: FailureKind, reason: str, *, is_suspect: bool = False, waited_s: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.is_suspect = is_suspect
        self.waited_s = waited_s


def engine_error(
    code: int, message: str, *, may_retry: bool = False, waited_s: float = 0.0
) -> EngineError:
    """The failure for a gRPC code.

    Args:
        code: its number.
        message: what came with it.
        may_retry: the answer says when to come back, as that of a rate limit does.
        waited_s: how long it waited for its turn.
    """
    try:
        known = Code(code)
    except ValueError:
        known = Code.UNKNOWN
    kind = FailureKind.ROWS
    if known in _RETRY or may_retry:
        kind = FailureKind.RETRY
    elif known in _FATAL:
        kind = FailureKind.FATAL
    is_suspect = known in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE) and not may_retry
    reason = f"{known.name}: {message}"
    return EngineError(kind, reason, is_suspect=is_suspect, waited_s=waited_s)
