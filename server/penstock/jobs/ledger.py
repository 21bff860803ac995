"""What of a job is done: one small record per committed part, in the outputs' `_work` folder.

A part is committed in this order: its file appears whole under its name, its rejects too, then its
record appears. A process that dies in between leaves a file without record: the part is done again
and its file, which has the same name, is replaced. So each row is in the outputs once.

There is a record per part, not one journal for all, because a file that appears whole needs no
repair after a crash, exists in object stores too, and is nobody else's: shards commit side by side
without a lock. Each record holds a checksum of itself; one that is damaged does not count.

    _work/job.json               what the job is: model, input, options
    _work/part-00003.json        a record
    _work/shard-1-of-4.json      the shard has nothing left to do
    _work/clearing.json          what an earlier job left is being removed
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from penstock.jobs.failures import PlanError
from penstock.jobs.storage import Storage

WORK = "_work"
MANIFEST = "manifest.json"
LOCK_PREFIX = ".lock-"
MOST_PARTS = 100_000
"""Of a job: each is two files at least, and all are listed at once."""
_CLEARING = "clearing.json"
_RECORD = re.compile(r"part-(\d{5,})\.json")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file of outputs or rejects."""

    name: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A committed part.

    Attributes:
        number: of the part.
        first: its first input row.
        rows: input rows it covers.
        output: its file.
        rejects: the file of its rejects; None = there are none.
    """

    number: int
    first: int
    rows: int
    output: OutputFile
    rejects: OutputFile | None = None

    @property
    def rejected(self) -> int:
        """Rows that were rejected."""
        return self.rejects.rows if self.rejects else 0


def part_name(number: int) -> str:
    """The name of a part, without suffix."""
    return f"part-{number:05}"


class Ledger:
    """The records of one output.

    Threading: thread-compatible.
    Blocking: everything.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def job(self) -> dict[str, Any] | None:
        """What job these outputs are of; None where there is none or it is damaged."""
        return self._read("job.json")

    def unfinished_model(self) -> dict[str, Any] | None:
        """The model of the job that these outputs were begun by, unless it is finished."""
        if self.is_clearing() or self.manifest() is not None:
            return None
        model = (self.job() or {}).get("model")
        return model if isinstance(model, dict) else None

    def begin(self, job: Mapping[str, Any]) -> None:
        """Says what job this is."""
        self._write("job.json", job)

    def commit(self, part: PartRecord) -> None:
        """The part's files are there for good."""
        self._write(f"{part_name(part.number)}.json", asdict(part))

    def parts(self) -> dict[int, PartRecord]:
        """The committed parts by number, ascending."""
        found = {}
        for name in self._storage.names(WORK):
            content = self._read(name) if _RECORD.fullmatch(name) else None
            if content is not None:
                record = _record_of(content)
                found[record.number] = record
        return dict(sorted(found.items()))

    def finish_shard(self, index: int, count: int, summary: Mapping[str, Any]) -> None:
        """The shard has nothing left to do."""
        self._write(f"shard-{index}-of-{count}.json", summary)

    def finished_shards(self, count: int) -> list[dict[str, Any]]:
        """What the shards that have finished said."""
        names = [f"shard-{index}-of-{count}.json" for index in range(count)]
        return [found for found in map(self._read, names) if found is not None]

    def manifest(self) -> dict[str, Any] | None:
        """What the finished job said; None while it is not finished."""
        content = self._storage.read(MANIFEST)
        if not content:  # Azure shows an upload as an empty object until it ends
            return None
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict) or "job" not in found:
            raise PlanError(f"{self._storage.uri}/{MANIFEST} is no manifest of a batch job")
        return found

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """The outputs are whole; nothing else is needed from now on."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        self._storage.write(MANIFEST, text.encode())
        self._storage.remove_folder(WORK)

    def locks(self) -> list[str]:
        """The files by which shards keep others from their work."""
        root = self._storage.local_root
        if root is None:
            return []
        return [f"{WORK}/{path.name}" for path in (root / WORK).glob(f"{LOCK_PREFIX}*")]

    def is_clearing(self) -> bool:
        """Whether a process died while it removed what an earlier job had left."""
        return _CLEARING in self._storage.names(WORK)

    def has_foreign_parts(self) -> bool:
        """Whether there are parts here, and nothing that says of which job."""
        if self._storage.names(WORK) or self._storage.read(MANIFEST) is not None:
            return False
        return any(name.startswith("part-") for name in self._storage.names())

    def clear(self) -> None:
        """Removes what an earlier job left, the manifest first: without it nothing counts.

        If the process dies meanwhile, `is_clearing` is true until it is done again.
        """
        self._write(_CLEARING, {})
        self._storage.remove([MANIFEST])
        names = [name for name in self._storage.names() if name.startswith("part-")]
        rejects = [f"rejects/{n}" for n in self._storage.names("rejects") if n.startswith("part-")]
        self._storage.remove([*names, *rejects])
        # A marker that outlives the records would do no harm; records that outlive it would.
        records = [f"{WORK}/{n}" for n in self._storage.names(WORK) if n != _CLEARING]
        self._storage.remove(records)
        self._storage.remove_folder(WORK)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        body = json.dumps(content, sort_keys=True)
        document = {"sha256": _digest(body), "content": json.loads(body)}
        self._storage.write(f"{WORK}/{name}", json.dumps(document).encode())

    def _read(self, name: str) -> dict[str, Any] | None:
        raw = self._storage.read(f"{WORK}/{name}")
        try:
            document = json.loads(raw or b"")
            content = document["content"]
            is_whole = document["sha256"] == _digest(json.dumps(content, sort_keys=True))
        except (ValueError, TypeError, KeyError):
            return None
        return content if is_whole and isinstance(content, dict) else None


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """How a job differs from the one whose outputs are there, a line per field."""
    return [
        f"{name}: there {_short(found.get(name))}, asked {_short(wanted.get(name))}"
        for name in dict.fromkeys((*wanted, *found))
        if wanted.get(name) != found.get(name)
    ]


def totals(parts: Iterable[PartRecord]) -> dict[str, int]:
    """Input rows, output rows and rejected rows."""
    listed = list(parts)
    return {
        "rows_in": sum(part.rows for part in listed),
        "rows_out": sum(part.output.rows for part in listed),
        "rows_rejected": sum(part.rejected for part in listed),
    }


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def _record_of(content: Mapping[str, Any]) -> PartRecord:
    rejects = content["rejects"]
    return PartRecord(
        content["number"],
        content["first"],
        content["rows"],
        OutputFile(**content["output"]),
        OutputFile(**rejects) if rejects else None,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
