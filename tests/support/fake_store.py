"""A store that does what the test says, for those who follow it."""

import threading
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from penstock.store.failures import StoreError, StoreUnavailableError, UnknownEntryError
from penstock.store.records import Deployment, DeployStatus, Desired


def deployment(number: int, version: int, status: str = "REQUESTED", **more: Any) -> Deployment:
    made = Deployment(
        id=number,
        environment="prod",
        model="m",
        version=version,
        digest=f"sha256:{version}",
        kind="deploy",
        alias="",
        allow_breaking=False,
        status=status,
        reason="",
        actor="tester",
        requested_ms=0,
        settled_ms=None,
    )
    return replace(made, **more)


@dataclass
class FakeStore:
    generation_: int = 0
    wanted: list[Desired] = field(default_factory=list)
    is_gone: bool = False
    refusal: StoreError | None = None  # of what is written
    unknown: set[int] = field(default_factory=set)  # deployments that are not there any more
    gate: threading.Event | None = None  # that writing waits for
    unfit: set[int] = field(default_factory=set)  # deployments whose reports cannot be written
    reports: list[tuple[int, str, str]] = field(default_factory=list)
    told: SimpleQueue[tuple[int, str, str]] = field(default_factory=SimpleQueue)  # them, too
    heard: SimpleQueue[tuple[str, str]] = field(default_factory=SimpleQueue)
    refused: SimpleQueue[str] = field(default_factory=SimpleQueue)

    def ask(self, *wanted: Desired) -> None:
        self.generation_ += 1
        self.wanted = list(wanted)

    def generation(self, environment: str) -> int:
        if self.is_gone:
            raise StoreUnavailableError("gone")
        return self.generation_

    def desired(self, environment: str) -> tuple[int, list[Desired]]:
        return self.generation_, self.wanted

    def environment_names(self) -> list[str]:
        return ["prod", "staging"]

    def report(
        self,
        deployment_id: int,
        server: str,
        status: DeployStatus,
        *,
        reason: str = "",
        digest: str = "",
    ) -> None:
        self._begin_to_write()
        if deployment_id in self.unknown:
            raise UnknownEntryError("no such deployment")
        if deployment_id in self.unfit:
            raise UnicodeEncodeError("utf-8", reason, 0, 1, "surrogates not allowed")
        self.reports.append((deployment_id, status.value, reason))
        self.told.put(self.reports[-1])

    def hear(self, environment: str, server: str) -> None:
        self._begin_to_write()
        self.heard.put((environment, server))

    def _begin_to_write(self) -> None:
        if self.gate is not None:
            self.gate.wait()
        refusal = StoreUnavailableError("gone") if self.is_gone else self.refusal
        if refusal is not None:
            self.refused.put(str(refusal))
            raise refusal
