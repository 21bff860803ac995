"""Whether the bytes of a version are still those that were pushed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from penstock.store.artifacts import Artifacts
from penstock.store.failures import CorruptError
from penstock.store.golden import MAX_BYTES
from penstock.store.records import VersionRecord

__all__ = ["Verification", "faults_of"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found of a version; no faults: its bytes are those that were pushed."""

    reference: str
    digest: str
    status: str
    faults: tuple[str, ...] = ()


def faults_of(artifacts: Artifacts, record: VersionRecord) -> Iterator[str]:
    """Hashes everything; what is not as its name says is put aside, and told.

    Raises:
        StoreUnavailableError: the artifacts are not there; nothing is said of the version.
    """
    artifacts.check_there()
    manifest = record.digest.removeprefix("sha256:")
    yield from _faults(artifacts, manifest, partial(artifacts.manifest, record.digest))
    for golden in record.goldens:
        read = partial(artifacts.read, golden.sha256, MAX_BYTES)
        for fault in _faults(artifacts, golden.sha256, read):
            yield f"golden request '{golden.name}': {fault}"
    for entry in record.files:
        yield from _faults(artifacts, entry.sha256, partial(artifacts.check, entry))


def _faults(artifacts: Artifacts, sha256: str, check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except CorruptError as error:
        if artifacts.quarantine(sha256, check):
            yield from error.lines
