"""What a peer is: a file of this folder with one subclass of `Peer` each (bench/README.md)."""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import _measure
from peers.protocols import Protocol
from peers.workload import Workload

HOME = _measure.ROOT / "build/peers"
MODELS = Path(__file__).resolve().parent / "models"
ORT = "onnxruntime==1.32.0"
"""Penstock's own (requirements.lock)."""


Variants = dict[str, dict[str, float]]
IMAGE_BATCHES: Variants = {
    "batches of 8, 1 ms": {"batch": 8, "wait_ms": 1},
    "batches of 8, 20 ms": {"batch": 8, "wait_ms": 20},
    "no batches": {"batch": 1, "wait_ms": 1},
}
"""Of whoever can batch images; those with no delay of their own say so."""


@dataclass(frozen=True)
class Place:
    """Where one start of a server happens, and with what.

    Attributes:
        home: the peer's environment.
        scratch: an empty folder of this start.
        settings: of the variant.
        http_port, grpc_port: free ports; more are made with `_measure.free_port`.
    """

    home: Path
    scratch: Path
    workload: Workload
    settings: dict[str, float]
    http_port: int
    grpc_port: int

    @property
    def python(self) -> str:
        return str(self.home / "bin/python")

    def environment(self, **more: str) -> dict[str, str]:
        """What models/engine.py reads, and `more`."""
        settings = {f"PEER_{name.upper()}": str(value) for name, value in self.settings.items()}
        return {
            **os.environ,
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(MODELS),
            "PEER_MODELS": str(MODELS),
            "PEER_MODEL": str(self.workload.model),
            "PEER_NAME": self.workload.name,
            "PEER_OUTPUT": self.workload.output,
            "PEER_THREADS": str(self.workload.threads),
            "PEER_HTTP_PORT": str(self.http_port),
            "PEER_GRPC_PORT": str(self.grpc_port),
            **settings,
            **more,
        }

    def model_file(self, name: str) -> str:
        """A file of bench/peers/models, copied into the scratch folder."""
        return str(shutil.copy(str(MODELS / name), self.scratch))


@dataclass(frozen=True)
class Launch:
    """How a server is started."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Route:
    """One way to ask a server. `name`: gRPC or HTTP; peers are compared on the same one."""

    name: str
    port: int
    protocol: Protocol

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class Peer(ABC):
    """A server that a user may pick.

    Attributes:
        packages: what pip installs into its environment; versions pinned. Empty: it needs none.
        programs: what must be on the path besides, else the peer is skipped with that reason.
        pip_flags: of that installation.
        variants: settings by a name for people; a row of the table takes the best for it.
        image_variants: the same for images.
        notes: one sentence on the choice of settings.
        wins: where it may be better than Penstock, why: by route ("gRPC", "HTTP") or figure
            ("start", "memory").
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]] = ()
    pip_flags: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[Variants] = {"": {}}
    image_variants: ClassVar[Variants] = {"": {}}
    notes: ClassVar[str]
    wins: ClassVar[dict[str, str]] = {}

    def variants_for(self, work: Workload) -> Variants:
        """Its settings for a workload."""
        return self.variants if work.name == "digits" else self.image_variants

    def variant_names(self) -> list[str]:
        """All that have one."""
        return [name for name in {**self.variants, **self.image_variants} if name]

    @abstractmethod
    def launch(self, place: Place) -> Launch:
        """The command of a server with this place's workload and settings."""

    @abstractmethod
    def routes(self, place: Place) -> list[Route]:
        """The ways to ask it."""


def own_python() -> str:
    return sys.executable
