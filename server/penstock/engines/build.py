"""Builds engines from ONNX, with TensorRT's Python package or TensorRT-RTX's, which is like it.

Nothing of this is in a request's path: a build takes minutes and the whole device.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.engines.kept import (
    EngineError,
    find_asked,
    find_current,
    keep_asked,
    keep_operations,
    only_builder,
    operations_in,
    verify_engine,
    write_engine,
    write_file,
)
from penstock.engines.key import EngineRecipe, Library, ShapeRange, Target, file_sha256
from penstock.engines.profiles import NetworkInput, OpenBatch, make_profiles
from penstock.engines.target import find_target
from penstock.errors import ConfigError

FLAVOURS = ("tensorrt", "tensorrt_rtx")
"""Packages that build: TensorRT for this machine's device; TensorRT-RTX for any, without one."""

_log = logging.getLogger("penstock.engines")


@dataclass(frozen=True)
class BuildRequest:
    """What to build, and where to."""

    model: Path  # ONNX
    output: Path
    label: str  # what messages call the model
    flavour: str = "tensorrt"
    buckets: tuple[int, ...] = ()  # batch sizes, ascending; () = the model does not batch
    open_batch: OpenBatch | None = None  # in place of buckets, where the network decides
    ranges: Mapping[str, ShapeRange] = field(default_factory=dict)  # see make_profiles
    workspace_bytes: int = 0  # 0: what the library takes by itself
    version_compatible: bool = False  # by what it brings along: code for the host
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Built:
    """An engine on disk."""

    plan: Path
    key: str
    was_there: bool  # nothing was built: it was current
    size_bytes: int
    operations: int | None = None  # of a row, as is kept with it


Progress = Callable[[str, int, int], None]
"""Told of a phase, its steps so far and of how many."""
Count = Callable[[Path, Mapping[str, tuple[int, ...]]], int | None]
"""Tells what a run of a model costs with inputs of these dims, -1 = open; None: nobody knows."""


def build_engine(
    request: BuildRequest,
    on_progress: Progress = lambda *_: None,
    target: Callable[[], Target] = find_target,
    count: Count | None = None,
) -> Built:
    """Builds the engine, or finds that the one at the output is the one that would be built.

    It is built for the first device that this process sees. What is current and was built for an
    equal request is found without TensorRT's builder, which takes a context on the device, and
    without reading the network.

    Blocking: minutes. `count`: what a row costs is kept with the engine, and asked
    where it is not kept with one that is current.

    Raises:
        EngineError: the package, a driver or a device is missing; the model or its shapes are not
            what TensorRT takes; it fails; the result cannot be written.
        ConfigError: the shapes do not fit the model's inputs.
    """
    output = request.output
    if request.version_compatible and request.flavour != "tensorrt":
        raise EngineError(
            f"{request.label}: no engine of {request.flavour} is version-compatible: it runs with "
            "the very version that built it"
        )
    trt = load_package(request.flavour)
    # Before the first call of TensorRT, which crashes without a driver. RTX builds for no device.
    recipe = _recipe(trt, request, target() if request.flavour == "tensorrt" else None)
    with _labelled(request):
        by_network = None if request.open_batch is None else asdict(request.open_batch)
        asked = recipe.asked_key(request.buckets, request.ranges, by_network)
    with only_builder(output.parent):
        sidecar = find_asked(output, asked)
        if sidecar is not None and (count is None or operations_in(sidecar) is not None):
            return _built(output, sidecar, was_there=True)
        build = _Build(trt, request, on_progress)
        inputs, buckets = build.inputs(), build.buckets()
        with _labelled(request):
            profiles = make_profiles(inputs, buckets, request.ranges)
            recipe = replace(recipe, profiles=profiles)
            recipe.key()  # what is wrong with it is said before it is built
        current = find_current(output, recipe)
        if current is None:
            write_engine(output, build.run(profiles), recipe, asked)
        sidecar = verify_engine(output) if current is None else keep_asked(output, current, asked)
        if count is not None and operations_in(sidecar) is None:
            dims = _row_dims(inputs, profiles, buckets)
            sidecar = keep_operations(output, sidecar, count(request.model, dims))
        return _built(output, sidecar, was_there=current is not None)


def load_package(flavour: str) -> Any:
    """TensorRT's Python module.

    Raises:
        EngineError: it is not installed, or does not open.
    """
    if flavour not in FLAVOURS:
        raise EngineError(f"library: expected one of {', '.join(FLAVOURS)}, got '{flavour}'")
    try:
        return importlib.import_module(flavour)
    except ModuleNotFoundError:
        package = flavour.replace("_", "-")
        raise EngineError(
            f"the Python package '{package}' is not installed: engines are built by it "
            f"(pip install {package})"
        ) from None
    except (ImportError, OSError) as error:
        raise EngineError(f"the Python package '{flavour}' does not open: {error}") from error


def external_files(model: Path) -> dict[str, Path]:
    """Files below the model's directory that its bytes name: its weights, where they lie outside.

    A name that only looks like it costs a build more, one that was left out would cost a wrong
    answer.
    """
    content = model.read_bytes()
    found = (path for path in sorted(model.parent.rglob("*")) if path.is_file() and path != model)
    names = ((path.relative_to(model.parent).as_posix(), path) for path in found)
    return {name: path for name, path in names if name.encode() in content}


def _built(plan: Path, sidecar: Mapping[str, Any], *, was_there: bool) -> Built:
    size = plan.stat().st_size
    return Built(plan, str(sidecar["key"]), was_there, size, operations_in(sidecar))


@contextmanager
def _labelled(request: BuildRequest) -> Iterator[None]:
    """Has each fault say which model it is of."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError([f"{request.label}: {fault}" for fault in error.faults]) from error


def _row_dims(
    inputs: Sequence[NetworkInput],
    profiles: Sequence[Mapping[str, ShapeRange]],
    buckets: Sequence[int],
) -> dict[str, tuple[int, ...]]:
    """The dims of a run of one row, -1 where profiles leave them open."""

    def size(name: str, at: int, given: int) -> int:
        if given >= 0:
            return given
        if buckets and at == 0:
            return 1
        ranges = [profile[name] for profile in profiles if name in profile]
        sizes = {size for each in ranges for size in (each.least[at], each.greatest[at])}
        return sizes.pop() if len(sizes) == 1 else -1

    return {
        each.name: tuple(size(each.name, at, given) for at, given in enumerate(each.shape))
        for each in inputs
    }


def _recipe(trt: Any, request: BuildRequest, device: Target | None) -> EngineRecipe:
    """All but the profiles, which the network's inputs have a say in."""
    try:
        model = file_sha256(request.model)
        files = external_files(request.model)
        external = {name: file_sha256(path) for name, path in files.items()}
    except OSError as error:
        raise EngineError(f"{request.label}: a file cannot be read: {error.strerror}") from error
    return EngineRecipe(
        model_sha256=model,
        library=Library(request.flavour, trt.__version__),
        target=device,
        external_sha256=external,
        builder_flags=frozenset(_flags(request)),
        workspace_bytes=request.workspace_bytes,
    )


def _flags(request: BuildRequest) -> Iterator[str]:
    if request.version_compatible:
        # With a runtime in the plan, by which later versions run it. Without (EXCLUDE_LEAN_RUNTIME)
        # who runs it has to open that of the building version first, which our server does not.
        yield "VERSION_COMPATIBLE"


class _Build:
    """A network read from its file, and its build."""

    def __init__(self, trt: Any, request: BuildRequest, on_progress: Progress) -> None:
        self._trt = trt
        self._request = request
        self._on_progress = on_progress
        self._errors: list[str] = []
        self._logger = _make_logger(trt, self._errors)
        self._builder = self._made(lambda: trt.Builder(self._logger))
        self._network = self._made(lambda: self._builder.create_network(_network_flags(trt)))
        _register_plugins(trt, self._logger)
        self._parser = self._made(lambda: trt.OnnxParser(self._network, self._logger))
        self._errors.clear()
        if not self._parser.parse_from_file(str(request.model)):
            raise EngineError(f"{request.label}: {self._parse_fault()}")

    def inputs(self) -> Sequence[NetworkInput]:
        """The network's."""
        tensors = (self._network.get_input(i) for i in range(self._network.num_inputs))
        return [NetworkInput(each.name, tuple(each.shape)) for each in tensors]

    def buckets(self) -> tuple[int, ...]:
        """Batch sizes that profiles end at: as asked for, or as the network has it."""
        if self._request.open_batch is None:
            return self._request.buckets
        tensors = (self._network.get_output(i) for i in range(self._network.num_outputs))
        outputs = {each.name: tuple(each.shape) for each in tensors}
        return self._request.open_batch.buckets(self.inputs(), outputs)

    def run(self, profiles: Sequence[Mapping[str, ShapeRange]]) -> memoryview:
        """The plan's bytes."""
        trt, request = self._trt, self._request
        if request.version_compatible:
            _open_lean_runtime()
        config = self._builder.create_builder_config()
        for flag in _flags(request):
            config.set_flag(getattr(trt.BuilderFlag, flag))
        if request.workspace_bytes:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
        for number, profile in enumerate(profiles):
            self._add_profile(config, number, profile)
        config.progress_monitor = _make_monitor(trt, self._on_progress)
        if request.timing_cache is not None and request.flavour == "tensorrt":
            _use_timing_cache(config, request.timing_cache)
        self._errors.clear()  # a cache of timings that is not taken is no reason
        plan = self._builder.build_serialized_network(self._network, config)
        if plan is None:
            raise EngineError(f"{request.label}: TensorRT builds no engine: {self._first_error()}")
        if request.timing_cache is not None and request.flavour == "tensorrt":
            _keep_timing_cache(config, request.timing_cache)
        return memoryview(plan)

    def _add_profile(self, config: Any, number: int, shapes: Mapping[str, ShapeRange]) -> None:
        self._errors.clear()
        profile = self._builder.create_optimization_profile()
        for name, each in shapes.items():
            profile.set_shape(name, each.least, each.likely, each.greatest)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(
                f"{self._request.label}: TensorRT refuses profile {number}: {self._first_error()}"
            )

    def _parse_fault(self) -> str:
        parser = self._parser
        if parser.num_errors == 0:
            return f"the file cannot be read as ONNX: {self._first_error()}"
        error = parser.get_error(0)
        operator, name = error.node_operator(), error.node_name()
        return f"node '{name}' ({operator}) is not supported: {error.desc()}"

    def _made(self, make: Callable[[], Any]) -> Any:
        """What TensorRT makes; where that is null, its package raises TypeError or hands out None.

        Where no device can be used TensorRT may log that, hand out what is not null, and crash at
        its first use. TensorRT-RTX, which needs none, may say so and go on.
        """
        self._errors.clear()
        try:
            made = make()
        except TypeError as error:
            if "nullptr" not in str(error):
                raise
            made = None
        if made is None or (self._errors and self._request.flavour == "tensorrt"):
            why = f"TensorRT does not start: {self._first_error()}"
            raise EngineError(f"{self._request.label}: {why}")
        return made

    def _first_error(self) -> str:
        """Since they were cleared: what follows the first says, as a rule, only that it failed."""
        return self._errors[0] if self._errors else "it does not say why"


def _network_flags(trt: Any) -> int:
    """Precision is the model's own: where there is a choice, the network is strongly typed."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _register_plugins(trt: Any, logger: Any) -> None:
    """TensorRT's own, which some operators of ONNX, as RoiAlign, are parsed to."""
    register = getattr(trt, "init_libnvinfer_plugins", None)
    if register is not None and not register(logger, ""):
        _log.warning("TensorRT's own plug-ins cannot be registered: models may need them")


def _open_lean_runtime() -> None:
    """Has the builder find it by its name where it is pip's; else the builder looks, and says."""
    with suppress(ImportError):
        importlib.import_module("tensorrt_lean_libs")


def _make_logger(trt: Any, errors: list[str]) -> Any:
    """An error ends the build, and is told there; the lines about it are for who asks for them."""
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, given: Any, message: str) -> None:
            if given in (severity.INTERNAL_ERROR, severity.ERROR):
                errors.append(" ".join(message.split()))
            _log.log(logging.WARNING if given == severity.WARNING else logging.DEBUG, "%s", message)

    return Logger()


def _make_monitor(trt: Any, on_progress: Progress) -> Any:
    """Tells of the outermost phases only: those within are many and short."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._steps[phase] = steps
                on_progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self._steps:
                on_progress(phase, step + 1, self._steps[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            steps = self._steps.pop(phase, None)
            if steps is not None:
                on_progress(phase, steps, steps)

    return Monitor()


def _use_timing_cache(config: Any, path: Path) -> None:
    """What kernels were found to take, of builds before: it saves time and changes nothing."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise EngineError(f"timing cache '{path}' cannot be read: {error.strerror}") from error
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        _log.warning("timing cache '%s' is of another device or version: it is begun anew", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timing_cache(config: Any, path: Path) -> None:
    write_file(path, bytes(config.get_timing_cache().serialize()))
