"""What a failed load says, and with which code."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors import (
    ConfigError,
    CoreError,
    InternalError,
    InvalidArgumentError,
    UnimplementedError,
    core_error,
)
from penstock.repository.layout import MAX_NAME_BYTES


def is_foreseen(error: BaseException) -> bool:
    """Whether a load may fail like this without a defect of the server."""
    return isinstance(error, CoreError | ConfigError)


def load_failure(name: str, error: Exception) -> CoreError:
    """What clients are told of a failed load: what failed comes first, then every fault.

    A fault of the configuration is INVALID_ARGUMENT, a failure of the engine keeps its code, and an
    error that nobody foresaw is INTERNAL without its text, which may hold paths.
    """
    prefix = f"failed to load '{name}', "
    if isinstance(error, ConfigError):
        return InvalidArgumentError(prefix + "; ".join(error.faults))
    if isinstance(error, CoreError):
        if error.message.startswith(prefix):
            return error
        return core_error(error.code, prefix + error.message)
    return InternalError(f"{prefix}unexpected {type(error).__name__}")


def files_refusal(name: str, files: Sequence[str]) -> CoreError:
    """Why a load that brings contents of files is refused.

    A name that no file can have is INTERNAL, as Triton's clients expect.
    """
    parts = (part for path in files for part in path.split("/"))
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return InternalError(
            f"failed to load '{name}', failed to poll from model repository: the name of a file is "
            f"longer than {MAX_NAME_BYTES} bytes"
        )
    return UnimplementedError(
        f"failed to load '{name}', load parameter 'file:{files[0]}' is not supported: "
        "models are read from the repository only"
    )


def merge_failures(failures: Sequence[BaseException]) -> Exception:
    """One error for the versions of a load that failed; an unforeseen one goes first."""
    for failure in failures:
        if not is_foreseen(failure):
            if isinstance(failure, Exception):
                return failure
            raise failure
    faults = [
        fault
        for failure in failures
        for fault in (failure.faults if isinstance(failure, ConfigError) else [str(failure)])
    ]
    unique = list(dict.fromkeys(faults))
    first = next((failure for failure in failures if isinstance(failure, CoreError)), None)
    return ConfigError(unique) if first is None else core_error(first.code, "; ".join(unique))
