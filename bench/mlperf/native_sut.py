"""The system under test in C++ (bench/mlperf/native), where it was built with the core.

That is by `make loadgen`, or by the step `build` of bench.gpu with LoadGen's sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mlperf.settings import Plan
from mlperf.sut import Judge, Progress
from mlperf.targets import NETWORK, NativeSettings, Target
from mlperf.times import Times

_NAME = "_penstock_loadgen"
_BUILD = Path(__file__).resolve().parents[2] / "build"
_FOLDERS = tuple(_BUILD / name / "bench/mlperf/native" for name in ("release", "gpu"))


@cache
def load_module() -> Any:
    """The native module of the core's own build; None where that has none.

    Looked for once: the core is read for it, and each probe of a search has a system of its own.
    """
    spec = importlib.util.find_spec("penstock._core")
    if spec is None or spec.origin is None:
        return None
    found = built_with(Path(spec.origin).with_name("libpenstock.so"))
    return None if found is None else _load(found)


def built_with(library: Path, folders: Iterable[Path] = _FOLDERS) -> Path | None:
    """The module that was linked with this very library, by its hash, for this Python.

    One of another build has other types, and may read the core's memory as what it is not.
    """
    if not library.exists():
        return None
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    for folder in folders:
        module = folder / f"{_NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
        told = folder / f"{module.name}.core"
        if module.exists() and told.exists() and told.read_text().startswith(digest):
            return module
    return None


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeSut:
    """As `Sut`. Answers are judged after the run: each different one, and how often it came."""

    kind = "native (C++)"

    def __init__(self, plan: Plan, target: Target) -> None:
        """Raises RuntimeError where the target has no native half, or it is not built."""
        module = load_module()
        settings = NativeSettings(plan.window, plan.held_to, plan.mode == "accuracy")
        made = target.native(module, settings) if module is not None else None
        if made is None:
            raise RuntimeError(
                f"no native system under test for {plan.target} that is of the core's build: "
                "make loadgen"
            )
        self._sut = made
        self._plan = plan
        self._target = target
        self._began_ns = time.monotonic_ns()

    def run(self) -> None:
        """Blocking: until LoadGen has done."""
        plan = self._plan
        self._sut.run(
            scenario=plan.scenario,
            mode=plan.test_mode,
            settings=plan.values(),
            output=str(plan.output),
            library=plan.workload.name,
            name=NETWORK if plan.target == "grpc" else self._target.name(),
            is_network=plan.is_network,
        )

    def progress(self) -> Progress:
        """Now."""
        return Progress(**self._sut.progress())

    def failures(self) -> Counter[str]:
        """By text, so far without wrong answers."""
        return Counter(self._sut.failures())

    def judge(self) -> Counter[str]:
        """After the run: failures, wrong answers among them."""
        failures = self.failures()
        judge = Judge(self._plan.workload, self._target)
        for sample, message, count in self._sut.answers():
            if failure := judge.failure(sample, message):
                failures[failure] += count
        return failures

    def times(self) -> Times:
        """After the run."""
        found = self._sut.tally()
        return Times(
            count=found["count"],
            mean_us=found["mean_ns"] / 1e3,
            quantiles=[(share, ns / 1e3) for share, ns in found["quantiles_ns"]],
            bin_s=found["bin_ns"] / 1e9,
            bins=found["bins"],
            seconds=(found["last_ns"] - found["first_ns"]) / 1e9,
        )

    def close(self) -> None:
        """Ends its thread and its connections."""
        self._sut.close()
