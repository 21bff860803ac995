"""Engines of models that are given as ONNX: found in the cache, or built, when a model is loaded.

A build takes minutes and is part of a load, never of a request; the version is ready when it has
ended. It runs in a process of its own (`child`), which the server outlives, and whose progress is
logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from penstock.codec import ModelConfig
from penstock.engines.build import FLAVOURS, BuildRequest
from penstock.engines.key import ShapeRange
from penstock.engines.profiles import default_buckets, parse_range
from penstock.errors import CancelledError, ConfigError, FailedPreconditionError

SHAPE_PREFIX = "shape:"
"""Of parameters that say how far an open input goes: shape:ids = 16:128:512."""
_PLAN_FILE = "model.plan"
_MAX_ANSWER_BYTES = 1 << 20
_TAIL_BYTES = 2000

_log = logging.getLogger("penstock.engines")


@dataclass(frozen=True, slots=True)
class EngineCacheSettings:
    """Where engines are kept, and how they are built.

    Attributes:
        directory: holds one directory per model, batch sizes and flavour.
        limit_s: a build that takes longer is ended.
        command: of the child, without its argument; nothing is imported from the directory that
            the server runs in.
        flavour: the Python package that builds.
    """

    directory: Path
    limit_s: float = 3600.0
    command: Sequence[str] = (sys.executable, "-P", "-m", "penstock.engines.child")
    flavour: str = "tensorrt"


class EngineCache:
    """Finds and builds engines.

    Threading: thread-safe. Blocking: `plan_of`, for minutes.
    Ownership: owns the processes that build; `close` ends them.
    """

    def __init__(self, settings: EngineCacheSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._is_closed = False
        self._building: set[subprocess.Popen[bytes]] = set()

    def plan_of(self, model: Path, label: str, config: ModelConfig) -> Path:
        """The plan of an ONNX model, which is current when this returns.

        Args:
            model: the file.
            label: what messages call it.
            config: its batch sizes decide the profiles; parameters `shape:NAME` the open inputs.

        Raises:
            ConfigError: a shape is not written as it should be.
            FailedPreconditionError: it cannot be built; says why, without paths.
            CancelledError: the server stops.
        """
        if self._is_closed:
            raise CancelledError(f"{label}: the server is stopping")
        ranges = dict(_ranges(config.parameters))
        preferred = config.dynamic_batching.preferred_batch_sizes if config.dynamic_batching else ()
        buckets = default_buckets(config.max_batch_size or 0, preferred)
        place = self._place(model, buckets, ranges)
        request = BuildRequest(
            model=model,
            output=place / _PLAN_FILE,
            label=label,
            flavour=self._settings.flavour,
            buckets=buckets,
            ranges=ranges,
            timing_cache=self._settings.directory / "timings",
        )
        _log.info("%s: its engine is looked for, and built if need be", label)
        self._build(request)
        return request.output

    def close(self) -> None:
        """Ends what is being built, and refuses what comes."""
        with self._lock:
            self._is_closed = True
            for process in self._building:
                _kill(process)

    def _place(
        self, model: Path, buckets: tuple[int, ...], ranges: Mapping[str, ShapeRange]
    ) -> Path:
        """One for each thing that is asked for; whether what is there is current is the key's."""
        asked = [str(model.resolve()), buckets, sorted(map(str, ranges.items()))]
        if self._settings.flavour != FLAVOURS[0]:
            asked.append(self._settings.flavour)
        return self._settings.directory / hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _build(self, request: BuildRequest) -> None:
        try:
            with tempfile.TemporaryFile() as words, tempfile.TemporaryFile() as asked:
                asked.write(_encode_request(request).encode())
                asked.seek(0)
                why = self._run(request, words, asked)
                if why is not None:
                    _log.warning("%s: what its build said last: %s", request.label, _tail(words))
                    raise FailedPreconditionError(self._without_paths(why, request))
        except OSError as error:
            why = f"{request.label}: its engine cannot be built: {error.strerror}"
            raise FailedPreconditionError(why) from error

    def _run(self, request: BuildRequest, words: IO[bytes], asked: IO[bytes]) -> str | None:
        """Why there is no plan; None where there is. No child is left, however this ends."""
        answers, answer_to = os.pipe()
        try:
            try:
                process = self._start(request, answer_to, words, asked)
            finally:
                os.close(answer_to)
            try:
                return self._await(process, request, answers)
            except BaseException:
                _kill(process)
                process.wait()
                raise
            finally:
                with self._lock:
                    self._building.discard(process)
        finally:
            os.close(answers)

    def _start(
        self, request: BuildRequest, answer_to: int, words: IO[bytes], asked: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        try:
            process = subprocess.Popen(
                [*self._settings.command, str(answer_to)],
                stdin=asked,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(answer_to,),
                start_new_session=True,
            )
        except OSError as error:
            raise FailedPreconditionError(
                f"{request.label}: its engine cannot be built: the process for it does not "
                f"start: {error.strerror}"
            ) from error
        with self._lock:
            self._building.add(process)
            if self._is_closed:  # meanwhile: `close` does not wait for a start
                _kill(process)
        return process

    def _await(
        self, process: subprocess.Popen[bytes], request: BuildRequest, answers: int
    ) -> str | None:
        """Why there is no plan; None where there is."""
        what = f"{request.label}: its engine cannot be built: "
        listener = _Listener(answers, lambda said: _log_progress(request.label, said))
        if not listener.follow(process, self._settings.limit_s):
            _kill(process)
            process.wait()
            return f"{what}it took longer than {self._settings.limit_s:.0f} s"
        if self._is_closed:
            raise CancelledError(f"{request.label}: the server is stopping")
        answer = listener.answer
        if answer is not None and process.returncode in (0, 1):
            why = answer.get("error")
            return None if why is None else what + str(why).removeprefix(f"{request.label}: ")
        if process.returncode < 0:
            return f"{what}the process for it was killed by {_signal_name(-process.returncode)}"
        return f"{what}the process for it ended with code {process.returncode}"

    def _without_paths(self, text: str, request: BuildRequest) -> str:
        """A client may read it, and has no command line."""
        text = text.replace("--shape ", f"parameter {SHAPE_PREFIX}")
        for path in (request.output.parent, request.model.parent, self._settings.directory):
            text = text.replace(f"{path}/", "").replace(str(path), "the cache")
        return text


class _Listener:
    """Takes what a child says of its build, line by line of JSON, until it ends.

    A process that the child leaves behind may keep the pipe open for longer: it is not waited for.

    Threading: one thread's.
    """

    def __init__(self, descriptor: int, on_progress: Callable[[dict[str, Any]], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_progress = on_progress
        self._rest = b""
        self.answer: dict[str, Any] | None = None
        """The last line, where it is an answer."""

    def follow(self, process: subprocess.Popen[bytes], limit_s: float) -> bool:
        """Until the process has ended; False where it did not in time. Blocking: for as long."""
        end = time.monotonic() + limit_s
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(self._descriptor, select.POLLIN)
            while (left := end - time.monotonic()) > 0:
                ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
                if self._descriptor in ready and not self._read():
                    poll.unregister(self._descriptor)
                if ended in ready:
                    process.wait()
                    while self._read():
                        pass
                    self._take(self._rest)
                    return True
            return False
        finally:
            os.close(ended)

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            read = os.read(self._descriptor, _MAX_ANSWER_BYTES)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + read).split(b"\n")
        self._rest = self._rest[:_MAX_ANSWER_BYTES]
        for line in lines:
            self._take(line)
        return bool(read)

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if "phase" in said:
            self._on_progress(said)
        else:
            self.answer = said


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
            found.append(parse_range(f"{name}={value}"))
        except ConfigError as error:
            raise ConfigError(
                [
                    f"parameters['{SHAPE_PREFIX}{name}']: expected LEAST:LIKELY:GREATEST, as "
                    f"1x8:4x8:8x8, got '{value}'"
                ]
            ) from error
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and what it started: the group is its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _tail(words: IO[bytes]) -> str:
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - _TAIL_BYTES))
    return " ".join(words.read().decode(errors="replace").split())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
