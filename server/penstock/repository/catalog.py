"""ModelCatalog: what is served and in which state, and the reads that clients ask for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from penstock.codec import (
    IndexEntry,
    ModelConfig,
    ModelMetadata,
    TensorMetadata,
    VersionStatistics,
)
from penstock.errors import InvalidArgumentError, NotFoundError, UnavailableError
from penstock.repository.engine import EngineVersion
from penstock.repository.own_parameters import peak_operations_per_second
from penstock.repository.settings import BuiltPlan
from penstock.repository.states import (
    EVICTED,
    GIVEN_UP,
    NOT_LOADED,
    UNLOADED,
    State,
    VersionState,
    move,
)

_VERSION = re.compile(r"[0-9]{1,18}")

MAX_GONE = 16
"""Versions of a model that the index remembers though they are on no disk any more."""

MAX_GONE_MODELS = 64
"""The same of whole models."""


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version that is ready to serve, or serves.

    Attributes:
        version: its number.
        config: completed.
        inputs: as clients see them.
        outputs: as clients see them.
        handle: the engine's side of it.
        warm_ups: bytes of the ModelInferRequests that a further instance is warmed up with; kept
            where there may be one.
        runs_on: where it computes, and
        engine: name and version of what computes it.
        operations: tells what a row costs; None as long as nobody knows.
        built: the plan that was made of its file, which is not removed meanwhile.
    """

    version: int
    config: ModelConfig
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    handle: EngineVersion
    warm_ups: tuple[bytes, ...] = ()
    runs_on: str = ""
    engine: str = ""
    operations: Callable[[], int | None] = lambda: None
    built: BuiltPlan | None = None

    def close(self, timeout_s: float) -> bool:
        """As `EngineVersion.close`; what was built for it may go once it is freed."""
        return self._let_go_if(self.handle.close(timeout_s))

    def reap(self) -> bool:
        """As `EngineVersion.reap`, and as `close`."""
        return self._let_go_if(self.handle.reap())

    def _let_go_if(self, is_freed: bool) -> bool:
        if is_freed and self.built is not None:
            self.built.let_go()
        return is_freed


@dataclass(slots=True)
class ModelRecord:
    """One model: versions that serve, the state of every version seen, and a fault of the whole.

    `states` has the version first that has changed the longest ago. `fault` says why the last load
    failed when it did not get as far as versions. `has_given_config`: its last load came with a
    configuration of its own in place of the file's. `on_demand`: the next request loads it.
    `evicted`: the configurations of the versions that were unloaded for others.
    """

    serving: dict[int, ServedVersion] = field(default_factory=dict)
    states: dict[int, VersionState] = field(default_factory=dict)
    fault: str = ""
    has_given_config: bool = False
    on_demand: bool = False
    unload_reason: str = UNLOADED
    evicted: dict[int, ModelConfig] = field(default_factory=dict)

    def begin_load(self, versions: Iterable[int]) -> None:
        """The load of these versions begins; those that serve go on."""
        self.fault = ""
        for version in versions:
            current = self.states.get(version)
            is_begun = current is not None and current.state is State.LOADING
            if version not in self.serving and not is_begun:
                self._move(version, State.LOADING)

    def fail_load(self, reason: str) -> None:
        """The load failed: nothing that serves changes, and all that was to load says why."""
        self.fault = reason
        for version, current in list(self.states.items()):
            if current.state is State.LOADING:
                self._move(version, State.UNAVAILABLE, reason)
                self.fault = ""
            elif version in self.serving:
                text = f"the reload failed and the earlier load serves: {reason}"
                self._move(version, State.READY, text)
                self.fault = ""

    def give_up_load(self) -> None:
        """Nobody waits for the load, which has not begun: it is neither loaded nor broken."""
        for version, current in list(self.states.items()):
            if current.state is State.LOADING:
                self._move(version, State.UNAVAILABLE, GIVEN_UP)

    def swap(
        self, versions: Iterable[ServedVersion], reason: str = UNLOADED
    ) -> list[ServedVersion]:
        """Exactly these serve from now on. Returns what served before, unloaded for this reason.

        Earlier failures are forgotten: whoever loads or unloads the model has settled them.
        """
        replaced = list(self.serving.values())
        self.serving = {served.version: served for served in versions}
        self.fault = ""
        self.unload_reason = reason
        is_evicted = reason == EVICTED
        self.evicted = {each.version: each.config for each in replaced if is_evicted}
        for version in self.serving:
            self._move(version, State.READY)
        for old in replaced:
            if old.version not in self.serving:
                self._move(old.version, State.UNLOADING)
        for version, current in list(self.states.items()):
            if current.state is State.UNAVAILABLE:
                self.states[version] = VersionState(State.UNAVAILABLE, reason)
        return replaced

    def finish_unload(self, version: int) -> None:
        """The version's requests are finished; no effect if it is wanted again meanwhile."""
        current = self.states.get(version)
        if current is not None and current.state is State.UNLOADING:
            self._move(version, State.UNAVAILABLE, self.unload_reason)

    def forget_gone(self, on_disk: Collection[int]) -> None:
        """Forgets versions that do not serve and are not on disk, but for the last to have gone.

        With polling, a model may have had thousands of them in the life of a server.
        """
        gone = [
            version
            for version, current in self.states.items()
            if current.state is State.UNAVAILABLE and version not in on_disk
        ]
        for version in gone[:-MAX_GONE]:
            del self.states[version]

    def is_gone(self) -> bool:
        """Whether nothing of it serves, loads or is being unloaded."""
        states = (current.state for current in self.states.values())
        return not self.serving and all(state is State.UNAVAILABLE for state in states)

    def unready(self) -> list[int]:
        """Versions that are known but do not serve."""
        return sorted(self.states.keys() - self.serving.keys())

    def is_idle(self) -> bool:
        """Whether no request is queued or in flight, background requests among them."""
        for served in self.serving.values():
            stats = served.handle.stats()
            for part in (stats, stats.get("background", {})):
                if part.get("pending", 0) or part.get("running", 0):
                    return False
        return True

    def is_healthy(self) -> bool:
        """Whether strict readiness accepts it. What is loaded on demand is not missed before."""
        if self.on_demand and not self.serving:
            return True
        return (
            not self.fault
            and all(state.is_healthy() for state in self.states.values())
            and all(served.handle.is_available() for served in self.serving.values())
        )

    def index_entries(self, name: str) -> list[IndexEntry]:
        """Its lines in the index."""
        entries = [
            IndexEntry(name, str(version), current.state.value, current.reason)
            for version, current in sorted(self.states.items())
        ]
        if self.fault:
            entries.insert(0, IndexEntry(name, "", "UNAVAILABLE", self.fault))
        if not entries and self.on_demand:
            return [IndexEntry(name, "", "UNAVAILABLE", NOT_LOADED)]
        return entries or [IndexEntry(name)]

    def _move(self, version: int, state: State, reason: str = "") -> None:
        moved = move(self.states.get(version), state, reason)
        self.states.pop(version, None)  # the latest to change is the last
        self.states[version] = moved


def parse_version(version: str) -> int | None:
    """A version as clients write it; None for the empty string: whichever the policy chooses.

    Raises:
        InvalidArgumentError: not a whole number of at most 18 digits.
    """
    if not version:
        return None
    if _VERSION.fullmatch(version) is None:
        raise InvalidArgumentError(
            f"failed to get model version from specified version string '{version}', "
            "version should be an integral value > 0"
        )
    return int(version)


class ModelCatalog:
    """The models by name.

    Threading: confined to the event loop.
    """

    def __init__(self) -> None:
        self._models: dict[str, ModelRecord] = {}

    def ready(self, name: str, version: str = "") -> bool:
        """Whether the model serves; with no version: any version. False for an unknown model.

        Raises:
            InvalidArgumentError: the version is not a number.
        """
        number = parse_version(version)
        record = self._models.get(name)
        if record is None:
            return False
        versions = record.serving if number is None else {number} & record.serving.keys()
        return any(record.serving[each].handle.is_available() for each in versions)

    def unavailable(self) -> frozenset[tuple[str, int]]:
        """Versions that serve and have no instance to run a batch: their workers are away."""
        return frozenset(
            (name, number)
            for name, record in self._models.items()
            for number, served in record.serving.items()
            if not served.handle.is_available()
        )

    def unlike_start(self, load_models: Collection[str]) -> list[str]:
        """Models that a start with these `load_models` would not serve as they are now, sorted."""

        def is_unlike(name: str, record: ModelRecord) -> bool:
            is_of_start = name in load_models or "*" in load_models
            if record.serving:
                return record.has_given_config or not is_of_start
            if record.on_demand:
                return False
            states = record.states.values()  # what failed would be tried again, and may fail again
            return is_of_start and bool(states) and all(each.is_healthy() for each in states)

        return sorted(name for name, record in self._models.items() if is_unlike(name, record))

    def may_remember_too_many(self) -> bool:
        """Whether it is worth asking for `gone_too_long`, which takes what is on disk."""
        return len(self._models) > MAX_GONE_MODELS

    def gone_too_long(self, on_disk: Collection[str]) -> list[str]:
        """Models of which nothing is left, here or on disk, but for the last that were served."""
        gone = [
            name
            for name, record in self._models.items()
            if name not in on_disk and record.is_gone()
        ]
        return gone[:-MAX_GONE_MODELS]

    def metadata(self, name: str, version: str = "") -> ModelMetadata:
        """What clients see of a model.

        Raises:
            NotFoundError: unknown, or no version is served.
            UnavailableError: the version is known but not served.
            InvalidArgumentError: the version is not a number.
        """
        served = self._find(name, version)
        versions = tuple(str(number) for number in sorted(self._models[name].serving))
        return ModelMetadata(
            name,
            versions,
            served.config.platform,
            served.inputs,
            served.outputs,
            served.runs_on,
        )

    def config(self, name: str, version: str = "") -> ModelConfig:
        """The configuration, completed. Raises as `metadata` does."""
        return self._find(name, version).config

    def statistics(self, name: str = "", version: str = "") -> list[VersionStatistics]:
        """Counters of the versions that are served: of all models, of one, or of one version.

        Raises: as `metadata` does, where a name is given.
        """
        if name:
            chosen = {name: self._find_all(name, version)}
        else:
            chosen = {each: _by_number(record) for each, record in sorted(self._models.items())}
        return [
            VersionStatistics(
                model,
                served.version,
                served.handle.stats(),
                served.operations,
                served.runs_on,
                served.engine,
                peak_operations_per_second(served.config),
            )
            for model, versions in chosen.items()
            for served in versions
        ]

    def _find_all(self, name: str, version: str) -> Sequence[ServedVersion]:
        found = self._find(name, version)
        return [found] if version else _by_number(self._models[name])

    def _find(self, name: str, version: str) -> ServedVersion:
        number = parse_version(version)
        record = self._models.get(name)
        unknown = f"Request for unknown model: '{name}'"
        if record is None:
            raise NotFoundError(f"{unknown} is not found")
        if record.on_demand and not record.serving:
            raise UnavailableError(f"'{name}' is not loaded: its next inference request loads it")
        if number is None:
            if not record.serving:
                raise NotFoundError(f"{unknown} has no available versions")
            return record.serving[max(record.serving)]
        if number in record.serving:
            return record.serving[number]
        if number in record.states:
            raise UnavailableError(f"'{name}' version {number} is not at ready state")
        raise NotFoundError(f"{unknown} version {number} is not found")


def _by_number(record: ModelRecord) -> list[ServedVersion]:
    return [served for _, served in sorted(record.serving.items())]


def start_all(versions: Sequence[ServedVersion]) -> None:
    """From here on they run what they are given."""
    for served in versions:
        served.handle.start()
