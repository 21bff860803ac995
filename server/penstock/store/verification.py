"""Whether the bytes of a version are still those that were pushed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.store.artifacts import ArtifactDirectory
from penstock.store.failures import CorruptError
from penstock.store.records import VersionRecord

__all__ = ["Verification", "faults_of"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found of a version; no faults: its bytes are those that were pushed."""

    reference: str
    digest: str
    status: str
    faults: tuple[str, ...] = ()


def faults_of(artifacts: ArtifactDirectory, record: VersionRecord) -> Iterator[str]:
    """Hashes everything; what is not as its name says is put aside, and told."""
    try:
        manifest = artifacts.manifest(record.digest)
        if manifest.files != tuple(sorted(record.files, key=lambda each: each.path.encode())):
            yield f"the manifest {record.digest} does not list the files that were pushed"
    except CorruptError as error:
        artifacts.quarantine(record.digest.removeprefix("sha256:"))
        yield from error.lines
    for entry in record.files:
        try:
            artifacts.check(entry)
        except CorruptError as error:
            artifacts.quarantine(entry.sha256)
            yield from error.lines
