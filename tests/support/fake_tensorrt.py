"""TensorRT's Python package as far as engines are built with it, without TensorRT.

Behaves by attributes: what the parser and the builder answer, what was asked of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class Severity(IntEnum):
    """Of a line of the log."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class _Base:
    Severity = Severity


@dataclass
class FakeTensorRt:
    """The module. `inputs`: (name, shape) of the network that every file holds."""

    inputs: Sequence[tuple[str, tuple[int, ...]]] = (("x", (-1, 4)),)
    outputs: Sequence[tuple[str, tuple[int, ...]]] = (("y", (-1, 2)),)
    plan: bytes | None = b"plan"
    parse_error: tuple[str, str, str] | None = None  # description, node, operator
    errors: Sequence[str] = ()  # logged before a build fails
    start_errors: Sequence[str] = ()  # logged before a builder is made
    start_fault: Exception | None = None  # raised in place of a builder
    has_plugins: bool = True
    accepts_profiles: bool = True
    accepts_timings: bool = True
    __version__: str = "11.1.0.106"
    builds: int = 0
    calls: list[str] = field(default_factory=list)  # of the module's functions and classes
    profiles: list[dict[str, Any]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    timings: list[bytes] = field(default_factory=list)
    ILogger: Any = _Base
    IProgressMonitor: Any = _Base
    NetworkDefinitionCreationFlag: Any = field(
        default_factory=lambda: SimpleNamespace(STRONGLY_TYPED=1)
    )
    BuilderFlag: Any = field(
        default_factory=lambda: SimpleNamespace(
            VERSION_COMPATIBLE="VERSION_COMPATIBLE", EXCLUDE_LEAN_RUNTIME="EXCLUDE_LEAN_RUNTIME"
        )
    )
    MemoryPoolType: Any = field(default_factory=lambda: SimpleNamespace(WORKSPACE="WORKSPACE"))
    network_flags: int = 0
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        self.init_libnvinfer_plugins: Any = self._register

    def Builder(self, logger: Any) -> _Builder:  # noqa: N802
        self.calls.append("Builder")
        for each in self.start_errors:
            logger.log(Severity.ERROR, each)
        if self.start_fault is not None:
            raise self.start_fault
        return _Builder(self, logger)

    def OnnxParser(self, network: Any, logger: Any) -> _Parser:  # noqa: N802
        del network, logger
        self.calls.append("OnnxParser")
        return _Parser(self)

    def _register(self, logger: Any, namespace: str) -> bool:
        assert namespace == ""
        self.calls.append("init_libnvinfer_plugins")
        if not self.has_plugins:
            logger.log(Severity.ERROR, "there is no library of plug-ins")
        return self.has_plugins


class _Parser:
    def __init__(self, fake: FakeTensorRt) -> None:
        self._fake = fake
        self.num_errors = 0 if fake.parse_error is None else 1

    def parse_from_file(self, path: str) -> bool:
        del path
        return self._fake.parse_error is None

    def get_error(self, index: int) -> Any:
        del index
        assert self._fake.parse_error is not None
        description, node, operator = self._fake.parse_error
        return SimpleNamespace(
            desc=lambda: description, node_name=lambda: node, node_operator=lambda: operator
        )


class _Builder:
    def __init__(self, fake: FakeTensorRt, logger: Any) -> None:
        self._fake = fake
        self._logger = logger

    def create_network(self, flags: int) -> Any:
        self._fake.network_flags = flags
        inputs = [SimpleNamespace(name=name, shape=shape) for name, shape in self._fake.inputs]
        outputs = [SimpleNamespace(name=name, shape=shape) for name, shape in self._fake.outputs]
        return SimpleNamespace(
            num_inputs=len(inputs),
            get_input=inputs.__getitem__,
            num_outputs=len(outputs),
            get_output=outputs.__getitem__,
        )

    def create_builder_config(self) -> _Config:
        return _Config(self._fake, self._logger)

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: Any, config: _Config) -> bytes | None:
        del network
        self._fake.builds += 1
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        monitor.phase_start("Timing", "Building engine", 1)
        monitor.step_complete("Timing", 0)
        monitor.phase_finish("Timing")
        monitor.step_complete("Building engine", 0)
        monitor.phase_finish("Building engine")
        for each in self._fake.errors if self._fake.plan is None else ():
            self._logger.log(Severity.ERROR, each)
        return self._fake.plan


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = shapes


class _Config:
    progress_monitor: Any = None

    def __init__(self, fake: FakeTensorRt, logger: Any) -> None:
        self._fake = fake
        self._logger = logger

    def add_optimization_profile(self, profile: _Profile) -> int:
        self._fake.profiles.append(profile.shapes)
        return len(self._fake.profiles) - 1 if self._fake.accepts_profiles else -1

    def set_flag(self, flag: str) -> None:
        self._fake.flags.append(flag)

    def set_memory_pool_limit(self, pool: str, size_bytes: int) -> None:
        assert pool == "WORKSPACE"
        self._fake.workspace_bytes = size_bytes

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._fake.timings.append(cache)
        if self._fake.accepts_timings or not cache:
            return True
        self._logger.log(Severity.ERROR, "the cache is of another device")
        return False

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings")
