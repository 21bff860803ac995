"""The plain values that the store takes and gives. Frozen: shared freely."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from penstock.store.failures import RefusedError
from penstock.store.manifest import FileEntry

__all__ = [
    "HEARD_EVERY_S",
    "DeployStatus",
    "Deployment",
    "Desired",
    "Event",
    "Golden",
    "Link",
    "MetricValue",
    "NewVersion",
    "Reference",
    "Report",
    "VersionRecord",
    "VersionStatus",
    "VersionSummary",
    "check_name",
]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class VersionStatus(StrEnum):
    """What may be done with a version."""

    READY = "READY"
    ARCHIVED = "ARCHIVED"
    """Kept, and not deployed any more."""
    QUARANTINED = "QUARANTINED"
    """Its bytes are not those that were pushed."""
    REMOVED = "REMOVED"
    """Its bytes are gone; what is known of it stays."""


class DeployStatus(StrEnum):
    """How a deployment fares."""

    REQUESTED = "REQUESTED"
    SERVING = "SERVING"
    FAILED = "FAILED"
    WAITING = "WAITING"
    """Only of a server: it has no room for it, and tries again."""
    SUPERSEDED = "SUPERSEDED"
    """Another was requested before any server had said anything."""
    WITHDRAWN = "WITHDRAWN"
    """The model is to serve no more."""
    REPLACED = "REPLACED"
    """It served until another did."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What NAME, NAME@3 and NAME@alias mean: at most one of version and alias is set."""

    model: str
    version: int | None = None
    alias: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads one.

        Raises:
            RefusedError: it is none.
        """
        name, at, pointer = text.partition("@")
        check_name("model", name)
        if not at:
            return cls(name)
        if pointer.isascii() and pointer.isdigit() and len(pointer) <= 18 and int(pointer) > 0:
            return cls(name, version=int(pointer))
        check_alias(pointer)
        return cls(name, alias=pointer)

    def __str__(self) -> str:
        pointer = self.alias or (str(self.version) if self.version else "")
        return f"{self.model}@{pointer}" if pointer else self.model


def check_name(kind: str, name: str) -> None:
    """Raises RefusedError unless a model, alias or environment may be called so."""
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"{name!r} is no name of {'an' if kind[0] in 'aeiou' else 'a'} {kind}: expected "
            "letters, digits, '_', '-' and '.', not '.' or '-' first, at most 200"
        )


def check_alias(name: str) -> None:
    """Raises RefusedError unless an alias may be called so: a number would look like a version."""
    check_name("alias", name)
    if name.isdigit():
        raise RefusedError(f"'{name}' is no name of an alias: it would look like a version")


@dataclass(frozen=True, slots=True)
class Link:
    """Something that a version was made of.

    Attributes:
        kind: data, feature, code, run or parent.
        name: of the dataset, feature, repository, run or model.
        revision: version of a feature, commit of code, version of a parent.
        uri: where it is; credentials are taken out.
        digest: of a dataset's snapshot or a parent.
        details: whatever else is known.
    """

    kind: str
    name: str
    revision: str = ""
    uri: str = ""
    digest: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A measured quality, and the data that it was measured on."""

    name: str
    value: float
    dataset: str = ""
    dataset_digest: str = ""


@dataclass(frozen=True, slots=True)
class Golden:
    """A request with its expected answer: a blob of JSON."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """What is known of a version when it is pushed; `signature` is of `penstock.store.signature`.

    Attributes:
        source_format: file, directory, triton or mlflow.
        runtime: facts of the format, such as opset or producer.
        requirements: lines of what a Python model needs.
    """

    model: str
    digest: str
    files: tuple[FileEntry, ...]
    backend: str = ""
    source_format: str = ""
    creator: str = ""
    owner: str = ""
    team: str = ""
    description: str = ""
    license: str = ""
    signature: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    metrics: tuple[MetricValue, ...] = ()
    goldens: tuple[Golden, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(entry.size_bytes for entry in self.files)


class VersionSummary(NamedTuple):
    """A line of a list; a tuple, of which ten thousand are made in milliseconds."""

    model: str
    version: int
    digest: str
    status: str
    backend: str
    owner: str
    size_bytes: int
    created_ms: int
    aliases: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord(NewVersion):
    """A version as the store has it."""

    id: int
    version: int
    status: str
    reason: str
    created_ms: int
    updated_ms: int
    aliases: tuple[str, ...] = ()
    deployments: tuple[Deployment, ...] = ()

    @property
    def reference(self) -> str:
        """NAME@version."""
        return f"{self.model}@{self.version}"

    @property
    def blobs(self) -> frozenset[str]:
        """The SHA-256 of everything that is stored of it."""
        names = [each.sha256 for each in self.files] + [each.sha256 for each in self.goldens]
        return frozenset([self.digest.removeprefix("sha256:"), *names])

    def links_of(self, kind: str) -> tuple[Link, ...]:
        """What it was made of, of one kind, in order."""
        return tuple(link for link in self.links if link.kind == kind)


class Report(NamedTuple):
    """What a server says of a deployment.

    Attributes:
        digest: of what it loaded.
        heard_ms: when it was last heard of; it says every HEARD_EVERY_S that it is there.
    """

    server: str
    status: str
    reason: str
    digest: str
    heard_ms: int


HEARD_EVERY_S = 300.0
"""How often servers say that they are there."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version that is, was or should be served in an environment.

    Attributes:
        kind: deploy, alias (the alias moved), rollback or undeploy.
        alias: that it follows; "" = none.
        reports: what servers said, by name.
    """

    id: int
    environment: str
    model: str
    version: int
    digest: str
    kind: str
    alias: str
    allow_breaking: bool
    status: str
    reason: str
    actor: str
    requested_ms: int
    settled_ms: int | None
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """What an environment should serve of a model: the target, or else what served last."""

    target: Deployment
    fallback: Deployment | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    id: int
    at_ms: int
    kind: str
    actor: str
    model: str
    version: int | None
    environment: str
    details: Mapping[str, Any]
