"""The steps, each of a few minutes: what to build, to test, to measure."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpu.hardware import Gpu
from gpu.parsing import last_line, parse_gtest, parse_mlperf, parse_sanitizer
from gpu.running import ROOT, LeftOut, Run, StepError, succeed
from gpu.table import Outcome, Row, parse_rows

BUILD = ROOT / "build" / "gpu"
_LIMIT_S = 900.0
_MODELS = ("resnet50", "bert")
OPERATIONS = "operations of a sample"
"""What a row is called that says what a model's sample costs."""
_PRECISION = "fp32"  # that of bench.mlperf's models
Found = Iterator[Row | str]


@dataclass(frozen=True)
class Context:
    """What steps are given.

    Attributes:
        gpu: to measure.
        run: how programs are run.
        output: a folder for what they leave.
        seconds: of each measurement that has a length.
        models: of bench.mlperf, to serve.
        found: what steps before found, on this machine and revision, by name.
    """

    gpu: Gpu
    run: Run
    output: Path
    seconds: float = 10.0
    models: Sequence[str] = _MODELS
    found: dict[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A step.

    Attributes:
        name: on the command line and in the table.
        does: what, in a line.
        work: yields figures and notes.
    """

    name: str
    does: str
    work: Callable[[Context], Found]


def configure_command(gpu: Gpu, has_tests: bool, python: str = sys.executable) -> list[str]:
    """CMake for this machine's GPU and Python, into a folder of its own."""
    command = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    if shutil.which("ninja"):
        command += ["-G", "Ninja"]
    return [
        *command,
        f"-DPython_EXECUTABLE={python}",
        f"-DPENSTOCK_OUTPUT_DIR={ROOT / 'server' / 'penstock'}",
        "-DPENSTOCK_CUDA=ON",
        f"-DCMAKE_CUDA_ARCHITECTURES={gpu.architecture}",
        "-DPENSTOCK_BUILD_GPU_BENCH=ON",
        f"-DPENSTOCK_BUILD_TESTS={'ON' if has_tests else 'OFF'}",
    ]


def build(context: Context) -> Found:
    """The core, its tests and gpu_bench, with the toolkit of this machine."""
    succeed(context.run([sys.executable, "proto/generate.py"], _LIMIT_S), "proto/generate.py")
    configured = context.run(configure_command(context.gpu, has_tests=True), _LIMIT_S)
    targets = ["all", "gpu_bench", "penstock_gpu_fixture", "gpu_test", "cuda_test"]
    if configured.status != 0:  # GoogleTest may not be there
        targets = targets[:3]
        configured = context.run(configure_command(context.gpu, has_tests=False), _LIMIT_S)
        succeed(configured, "cmake")
        yield "without tests, which want GoogleTest"
    jobs = str(len(os.sched_getaffinity(0)))
    command = ["cmake", "--build", str(BUILD), "-j", jobs, "--target", *targets]
    succeed(context.run(command, _LIMIT_S), "the build")
    yield from (line.strip("- ") for line in configured.output.splitlines() if "-- CUDA " in line)


def _program(*parts: str) -> str:
    path = BUILD.joinpath(*parts)
    if not path.exists():
        raise LeftOut(f"{path.name} is not built: run the step `build`")
    return str(path)


def device(context: Context) -> Found:
    """The native tests of csrc/gpu on the real device: the kernels' numbers, lanes, faults, IPC."""
    for name in ("gpu_test", "cuda_test"):
        ran = context.run([_program("tests", "native", "gpu", name)], _LIMIT_S)
        try:
            tests = parse_gtest(ran.output)
        except ValueError as error:
            raise StepError(f"{name}: {error} (status {ran.status})") from None
        yield Row.single("tests", f"{name}: passed", "tests", tests.passed)
        yield Row.single("tests", f"{name}: skipped", "tests", tests.skipped)
        if tests.failed or ran.status != 0:
            raise StepError(f"{name}: failed: {', '.join(tests.failed) or f'status {ran.status}'}")


def sanitizer(context: Context) -> Found:
    """The same program under compute-sanitizer: memcheck and racecheck."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        raise LeftOut("compute-sanitizer is not installed")
    program = _program("tests", "native", "gpu", "cuda_test")
    for check in ("memcheck", "racecheck"):
        # Not the tests that lose the device on purpose.
        command = [tool, f"--tool={check}", program, "--gtest_filter=-*Death*"]
        ran = context.run(command, _LIMIT_S)
        count = parse_sanitizer(ran.output)
        yield Row.single("compute-sanitizer", check, "findings", count)
        if count or ran.status != 0:
            raise StepError(f"{check}: {count} findings, status {ran.status}")


def _measure(part: str) -> Callable[[Context], Found]:
    def work(context: Context) -> Found:
        command = [_program("bench", "gpu", "native", "gpu_bench"), part]
        yield from parse_rows(succeed(context.run(command, _LIMIT_S), f"gpu_bench {part}"))

    return work


def peak(context: Context) -> Found:
    """What the GPU reaches in large matrix products."""
    command = [sys.executable, "-m", "bench.gpu.peak", "--seconds", str(min(context.seconds, 2.0))]
    ran = context.run(command, _LIMIT_S)
    if ran.status == LEFT_OUT_STATUS:
        raise LeftOut(last_line(ran.output))
    yield from parse_rows(succeed(ran, "peak"))


def with_shares(rows: Sequence[Row], context: Context, operations: float | None) -> Sequence[Row]:
    """Rates as shares of the peak, too, where it was measured and samples were counted."""
    before = context.found.get("peak")
    peaks = [each.median for each in before.rows if each.what == _PRECISION] if before else []
    if not peaks or not operations:
        return rows
    return [
        replace(row, share=row.median * operations / peaks[0]) if row.unit == "samples/s" else row
        for row in rows
    ]


def operations_in(rows: Sequence[Row], model: str) -> float | None:
    """What a sample of the model costs, as `ceiling` counted it."""
    costs = [row.median for row in rows if row.what == OPERATIONS and row.table.startswith(model)]
    return costs[0] if costs else None


def ceiling(context: Context) -> Found:
    """ONNX Runtime's CUDA provider alone: inputs on the device, batches of 1 to 256."""
    for model in context.models:
        command = [sys.executable, "-m", "bench.gpu.bare_loop", "--model", model]
        command += ["--seconds", str(min(context.seconds, 2.0))]
        ran = context.run(command, _LIMIT_S)
        if ran.status == LEFT_OUT_STATUS:
            raise LeftOut(last_line(ran.output))
        rows = parse_rows(succeed(ran, f"bare_loop {model}"))
        yield from with_shares(rows, context, operations_in(rows, model))


LEFT_OUT_STATUS = 4
"""Of bench.gpu's own programs: what they need is not installed."""


def _serve(scenario: str, target: str) -> Callable[[Context], Found]:
    def work(context: Context) -> Found:
        for model in context.models:
            folder = context.output / f"{model}-{scenario.lower()}-{target}"
            command = [sys.executable, "-m", "bench.gpu.served", "--model", model]
            command += ["--scenario", scenario, "--target", target, "--output", str(folder)]
            command += ["--duration", str(context.seconds)]
            results = folder / "results.json"
            results.unlink(missing_ok=True)  # an earlier run's are not this one's
            ran = context.run(command, _LIMIT_S)
            if ran.status == LEFT_OUT_STATUS:
                raise LeftOut(last_line(ran.output))
            if not results.exists():
                succeed(ran, f"bench.mlperf {model}")
                raise StepError(f"bench.mlperf left no results for {model}")
            found = list(served_rows(model, scenario, target, results.read_text()))
            before = context.found.get("ceiling")
            operations = operations_in(before.rows, model) if before else None
            rows = [each for each in found if isinstance(each, Row)]
            yield from with_shares(rows, context, operations)
            yield from (each for each in found if not isinstance(each, Row))

    return work


def _end_to_end(part: str) -> Callable[[Context], Found]:
    """The whole server, with a model of our own kernel."""

    def work(context: Context) -> Found:
        _program("testing", "gpu", "libpenstock_fixture.so")
        ran = context.run([sys.executable, "-m", "bench.gpu.end_to_end", part], _LIMIT_S)
        if ran.status == LEFT_OUT_STATUS:
            raise LeftOut(last_line(ran.output))
        yield from parse_rows(ran.output)
        yield from (line[2:] for line in ran.output.splitlines() if line.startswith("- "))
        succeed(ran, part)

    return work


def served_rows(model: str, scenario: str, target: str, results: str) -> Found:
    """The figures of a run of bench.mlperf."""
    found = parse_mlperf(results)
    where = {"engine": "in process", "grpc": "over gRPC"}[target]
    table = f"served {where}, {scenario}"
    yield Row.single(table, model, "samples/s", found.samples_per_s)
    if found.p99_ms is not None:
        yield Row.single(table, f"{model}, p99", "ms", found.p99_ms)
    if found.verdict != "VALID":
        yield f"{model}: {found.verdict}"


STEPS = (
    Step("build", "builds for this GPU and this Python", build),
    Step("device", "the native tests on the real device", device),
    Step("sanitizer", "those under compute-sanitizer", sanitizer),
    Step("copies", "ways of a batch to the device; the normalising kernel", _measure("copies")),
    Step("launches", "kernels, graphs and events, as the host pays", _measure("launches")),
    Step("lanes", "batches through lanes, with and without graphs", _measure("lanes")),
    Step("serve", "the server with our own kernel: where tensors may lie", _end_to_end("serve")),
    Step("fault", "a kernel that traps under load, and what comes then", _end_to_end("fault")),
    Step("memory", "a model that asks for more memory than there is", _end_to_end("memory")),
    Step("peak", "large matrix products: what shares of the peak are shares of", peak),
    Step("ceiling", "the CUDA provider alone, per batch size", ceiling),
    Step("offline", "LoadGen Offline, in process", _serve("Offline", "engine")),
    Step("server", "LoadGen Server at its latency bound, in process", _serve("Server", "engine")),
    Step("grpc", "LoadGen Offline, over gRPC", _serve("Offline", "grpc")),
)
