"""Engines of models that are given as ONNX: found in the cache, or built, when a model is loaded.

A build takes minutes and is part of a load, never of a request; the version is ready when it has
ended. It runs in a process of its own (`child`), which the server outlives, and whose progress is
logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penstock.codec import ModelConfig
from penstock.engines.build import FLAVOURS, BuildRequest
from penstock.engines.building import BuildProcess, started
from penstock.engines.kept import EngineError, library_of
from penstock.engines.key import ShapeRange
from penstock.engines.places import EngineInUse, EnginePlaces
from penstock.engines.profiles import OpenBatch, batching_of, parse_shapes
from penstock.engines.visible import VISIBLE_DEVICES, find_visible
from penstock.errors import CancelledError, ConfigError, FailedPreconditionError

SHAPE_PREFIX = "shape:"
"""Of parameters that say how far an open input goes: shape:ids = 16:128:512."""
_PLAN_FILE = "model.plan"
_FIRST_DEVICE = "0"

_log = logging.getLogger("penstock.engines")


@dataclass(frozen=True, slots=True)
class EngineCacheSettings:
    """Where engines are kept, and how they are built.

    Attributes:
        directory: holds one directory per model, batch sizes and flavour.
        limit_s: a build that takes longer is ended.
        max_bytes: of all engines; those that were not used for longest go first; 0 = no bound.
        end_s: how long one that was killed is waited for.
        command: of the child, without its argument; nothing is imported from the directory that
            the server runs in.
        flavour: the Python package that builds.
    """

    directory: Path
    limit_s: float = 3600.0
    command: Sequence[str] = (sys.executable, "-P", "-m", "penstock.engines.child")
    flavour: str = "tensorrt"
    max_bytes: int = 0
    end_s: float = 10.0


class EngineCache:
    """Finds and builds engines.

    Threading: thread-safe. Blocking: `plan_of`, for minutes.
    Ownership: owns the processes that build; `close` ends them.
    """

    def __init__(self, settings: EngineCacheSettings) -> None:
        self._settings = settings
        self._places = EnginePlaces(settings.directory, settings.max_bytes)
        self._lock = threading.Lock()
        self._is_closed = False
        self._building: set[BuildProcess] = set()
        self._held: dict[Path, subprocess.Popen[bytes]] = {}  # killed, not gone; by engine

    def plan_of(
        self,
        model: Path,
        label: str,
        config: ModelConfig,
        device: str = _FIRST_DEVICE,
        rows: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> EngineInUse:
        """The plan of an ONNX model, which is current when this returns, and stays while in use.

        Args:
            model: the file.
            label: what messages call it.
            config: its batch sizes decide the profiles; parameters `shape:NAME` the open inputs.
            device: that it is built for: a number among those that the server sees, or a UUID.
            rows: of a batch at most, where the configuration does not say and the model can batch.
            check: called before a first build for this machine: what it raises is why there is
                none.

        Raises:
            ConfigError: a shape is not written as it should be.
            FailedPreconditionError: it cannot be built; says why, without paths.
            CancelledError: the server stops.
        """
        if self._is_closed:
            raise CancelledError(f"{label}: the server is stopping")
        ranges = dict(_ranges(config.parameters))
        buckets, open_batch = batching_of(config, rows)
        try:
            environment = self._environment(device)
            place = self._place(model, buckets, open_batch, ranges, device)
            engine = self._places.use(place, _PLAN_FILE)
        except (OSError, EngineError) as error:
            fault = error.strerror if isinstance(error, OSError) else error
            why = f"{label}: its engine cannot be built: {fault}"
            raise FailedPreconditionError(why) from error
        request = BuildRequest(
            model=model,
            output=engine.path,
            label=label,
            flavour=self._settings.flavour,
            buckets=buckets,
            open_batch=open_batch,
            ranges=ranges,
            timing_cache=self._settings.directory / "timings",
        )
        try:
            if self._is_for_device() and not engine.path.exists():
                check()
            _log.info("%s: its engine is looked for, and built if need be", label)
            self._build(request, environment)
        except BaseException:
            self._places.discard(engine)
            raise
        self._places.prune()
        return engine

    def maker_of(self, plan: Path) -> str | None:
        """What built a plan, kept here or not, and its version; None: nothing beside it says so.

        Blocking: reads the plan.
        """
        return library_of(plan)

    def stats(self) -> Mapping[str, int] | None:
        """As `EnginePlaces.stats`."""
        return self._places.stats()

    def close(self) -> None:
        """Ends what is being built, and refuses what comes."""
        with self._lock:
            self._is_closed = True
            for child in self._building:
                child.stop()
            self._reap()

    def _is_for_device(self) -> bool:
        """Whether its plans are for the devices of this machine: TensorRT-RTX's are for none."""
        return self._settings.flavour == FLAVOURS[0]

    def _environment(self, device: str) -> dict[str, str]:
        """Of a child: it builds for the first device that it sees. RTX builds for no device."""
        if not self._is_for_device():
            return {}
        return {VISIBLE_DEVICES: find_visible(device, os.environ.get(VISIBLE_DEVICES))}

    def _place(
        self,
        model: Path,
        buckets: tuple[int, ...],
        open_batch: OpenBatch | None,
        ranges: Mapping[str, ShapeRange],
        device: str,
    ) -> str:
        """One for each thing that is asked for; whether what is there is current is the key's.

        A device is what the model calls it: servers that share the cache, each with one device of
        the same kind, have one plan for all.
        """
        asked = [str(model.resolve()), buckets, sorted(map(str, ranges.items()))]
        if open_batch is not None:
            asked.append(f"batch {json.dumps(asdict(open_batch), sort_keys=True)}")
        if not self._is_for_device():
            asked.append(self._settings.flavour)
        elif device != _FIRST_DEVICE:
            asked.append(f"device {device}")
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _build(self, request: BuildRequest, environment: Mapping[str, str]) -> None:
        what = f"{request.label}: its engine cannot be built: "
        if process := self._held_before(request):
            raise FailedPreconditionError(
                f"{what}process {process.pid}, which was to build it before, was killed and has "
                "not ended: the driver may hold it"
            )
        try:
            encoded = _encode_request(request).encode()
            with started(self._settings.command, encoded, environment) as child:
                why = self._await(child, request)
        except OSError as error:
            raise FailedPreconditionError(f"{what}{error.strerror}") from error
        if self._is_closed:
            raise CancelledError(f"{request.label}: the server is stopping")
        if why is not None:
            _log.warning("%s: what its build said: %s", request.label, child.words)
            raise FailedPreconditionError(self._without_paths(what + why, request))

    def _await(self, child: BuildProcess, request: BuildRequest) -> str | None:
        """Why there is no plan; None where there is. The child has ended, or does not end."""
        with self._lock:
            self._building.add(child)
            if self._is_closed:  # meanwhile: `close` does not wait for a start
                child.stop()
        try:
            is_in_time = child.follow(partial(_log_progress, request.label), self._settings.limit_s)
        finally:
            with self._lock:
                self._building.discard(child)
            is_gone = self._end(child, request)
        if not is_in_time:
            why = f"it took longer than {self._settings.limit_s:.0f} s"
            if is_gone:
                return (
                    f"{why}, the most that a load may (--engine-build-timeout-secs): give it more, "
                    "or build it before, by penstock build-engine"
                )
            return (
                f"{why}, and process {child.process.pid}, which was to build it and was killed, "
                "does not end: the driver may hold it"
            )
        return _why_ended(child, request)

    def _end(self, child: BuildProcess, request: BuildRequest) -> bool:
        """Whether the child is gone; else it is reaped when another build begins, or at close."""
        if child.end(self._settings.end_s):
            return True
        _log.error(
            "%s: process %d, which was to build its engine, was killed and does not end",
            *(request.label, child.process.pid),
        )
        with self._lock:
            self._held[request.output] = child.process
        return False

    def _held_before(self, request: BuildRequest) -> subprocess.Popen[bytes] | None:
        """A process that was killed and still has the engine's place: nobody else gets its lock."""
        with self._lock:
            self._reap()
            return self._held.get(request.output)

    def _reap(self) -> None:
        self._held = {o: each for o, each in self._held.items() if each.poll() is None}

    def _without_paths(self, text: str, request: BuildRequest) -> str:
        """A client may read it, and has no command line."""
        text = text.replace("--shape ", f"parameter {SHAPE_PREFIX}")
        for path in (request.output.parent, request.model.parent, self._settings.directory):
            text = text.replace(f"{path}/", "").replace(str(path), "the cache")
        return text


def _why_ended(child: BuildProcess, request: BuildRequest) -> str | None:
    """Why there is no plan of a child that has ended; None where there is."""
    code = child.process.returncode
    if child.answer is not None and code in (0, 1):
        why = child.answer.get("error")
        return None if why is None else str(why).removeprefix(f"{request.label}: ")
    return f"the process for it {child.how_ended()}"


def _log_progress(label: str, said: Mapping[str, Any]) -> None:
    _log.info(
        "%s: its engine is being built: %s, %s of %s",
        *(label, said.get("phase"), said.get("done"), said.get("of")),
    )


def _encode_request(request: BuildRequest) -> str:
    """A request as `child` reads it."""
    fields = {
        "model": str(request.model),
        "output": str(request.output),
        "label": request.label,
        "flavour": request.flavour,
        "buckets": request.buckets,
        "open_batch": None if request.open_batch is None else asdict(request.open_batch),
        "ranges": {
            name: (each.least, each.likely, each.greatest) for name, each in request.ranges.items()
        },
        "timing_cache": None if request.timing_cache is None else str(request.timing_cache),
    }
    return json.dumps(fields)


def _ranges(parameters: Mapping[str, str]) -> list[tuple[str, ShapeRange]]:
    named = (
        (name.removeprefix(SHAPE_PREFIX), value)
        for name, value in parameters.items()
        if name.startswith(SHAPE_PREFIX)
    )
    found = []
    for name, value in named:
        try:
            found.append((name, parse_shapes(value)))
        except ConfigError as error:
            what = f"parameters['{SHAPE_PREFIX}{name}']"
            raise ConfigError([f"{what}: {error.faults[0]}"]) from error
    return found
