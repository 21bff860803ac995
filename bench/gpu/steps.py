"""The steps, each of a few minutes: what to build, to test, to measure."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from gpu.bars import OPERATIONS, ceiling_table, served_table
from gpu.building import build
from gpu.parsing import last_line, notes_in, parse_gtest, parse_mlperf, parse_sanitizer
from gpu.running import BUILD, LeftOut, StepError, succeed
from gpu.step import LIMIT_S, Context, Found, Step
from gpu.table import Row, parse_rows

_PRECISION = "fp32"  # that of bench.mlperf's models
_REFUSED = "Device not supported"  # by compute-sanitizer, on some virtual machines


def _program(*parts: str) -> str:
    path = BUILD.joinpath(*parts)
    if not path.exists():
        raise LeftOut(f"{path.name} is not built: run the step `build`")
    return str(path)


def device(context: Context) -> Found:
    """The native tests of csrc/gpu on the real device: the kernels' numbers, lanes, faults, IPC."""
    for name in ("gpu_test", "cuda_test"):
        ran = context.run([_program("tests", "native", "gpu", name)], LIMIT_S)
        try:
            tests = parse_gtest(ran.output)
        except ValueError as error:
            raise StepError(f"{name}: {error} (status {ran.status})") from None
        yield Row.single("tests", f"{name}: passed", "tests", tests.passed)
        yield Row.single("tests", f"{name}: skipped", "tests", tests.skipped)
        if tests.failed or ran.status != 0:
            raise StepError(f"{name}: failed: {', '.join(tests.failed) or f'status {ran.status}'}")
        if tests.skipped > tests.passed:
            raise StepError(f"{name}: most was skipped: {tests.why_skipped}")


def sanitizer(context: Context) -> Found:
    """The same program under compute-sanitizer: memcheck and initcheck.

    Racecheck would say nothing: it looks at shared memory, of which our kernels have none.
    """
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        raise LeftOut("compute-sanitizer is not installed")
    program = _program("tests", "native", "gpu", "cuda_test")
    failures = []
    # Calls are made to fail on purpose, and the device is lost on purpose; and initcheck does not
    # see what another process writes.
    checks = (("memcheck", "*Death*", "--report-api-errors=no"), ("initcheck", "*Death*:CudaIpc*"))
    for check, but, *flags in checks:
        command = [tool, f"--tool={check}", *flags, program, f"--gtest_filter=-{but}"]
        ran = context.run(command, LIMIT_S)
        if _REFUSED in ran.output:
            raise LeftOut(f"compute-sanitizer says of this machine: {_REFUSED}")
        try:
            count = parse_sanitizer(ran.output)
        except ValueError as error:
            raise StepError(f"{check}: {error}: {last_line(ran.output)}") from None
        yield Row.single("compute-sanitizer", check, "findings", count)
        if count or ran.status != 0:
            failures.append(f"{check}: {count} findings, status {ran.status}")
    if failures:
        raise StepError("; ".join(failures))


def _measure(part: str) -> Callable[[Context], Found]:
    def work(context: Context) -> Found:
        command = [_program("bench", "gpu", "native", "gpu_bench"), part]
        ran = context.run(command, LIMIT_S)
        yield from parse_rows(ran.output)
        succeed(ran, f"gpu_bench {part}")

    return work


def _own(module: str, *flags: str) -> Callable[[Context], Found]:
    """A program of bench.gpu's that prints rows."""

    def work(context: Context) -> Found:
        ran = context.try_run([sys.executable, "-m", f"bench.gpu.{module}", *flags])
        yield from parse_rows(ran.output)
        succeed(ran, module)

    return work


def peak(context: Context) -> Found:
    """What the GPU reaches in large matrix products."""
    yield from _own("peak", "--seconds", str(min(context.seconds, 2.0)))(context)


def answers(context: Context) -> Found:
    """Models on the CUDA provider against the CPU."""
    for model in context.models:
        yield from _own("answers", "--model", model)(context)


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
    costs = [
        row.median for row in rows if row.what == OPERATIONS and row.table == ceiling_table(model)
    ]
    return costs[0] if costs else None


def ceiling(context: Context) -> Found:
    """ONNX Runtime's CUDA provider alone: inputs on the device, batches of 1 to 256."""
    for model in context.models:
        command = [sys.executable, "-m", "bench.gpu.bare_loop", "--model", model]
        ran = context.try_run([*command, "--seconds", str(min(context.seconds, 2.0))])
        rows = parse_rows(ran.output)
        yield from with_shares(rows, context, operations_in(rows, model))
        succeed(ran, f"bare_loop {model}")


def _serve(scenario: str, target: str) -> Callable[[Context], Found]:
    def work(context: Context) -> Found:
        for model in context.models:
            folder = context.output / f"{model}-{scenario.lower()}-{target}"
            command = [sys.executable, "-m", "bench.gpu.served", "--model", model]
            command += ["--scenario", scenario, "--target", target, "--output", str(folder)]
            command += ["--duration", str(context.seconds)]
            results = folder / "results.json"
            results.unlink(missing_ok=True)  # an earlier run's are not this one's
            ran = context.try_run(command)
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
        ran = context.try_run([sys.executable, "-m", "bench.gpu.end_to_end", part])
        yield from parse_rows(ran.output)
        yield from notes_in(ran.output)
        succeed(ran, part)

    return work


def served_rows(model: str, scenario: str, target: str, results: str) -> Found:
    """The figures of a run of bench.mlperf."""
    found = parse_mlperf(results)
    table = served_table(scenario, target)
    yield Row.single(table, model, "samples/s", found.samples_per_s)
    if found.p99_ms is not None:
        yield Row.single(table, f"{model}, p99", "ms", found.p99_ms)
    if found.verdict != "VALID":
        yield f"{model}: {found.verdict}"


STEPS = (
    Step("build", "builds for this GPU and this Python", build, 90),
    Step("device", "the native tests on the real device", device, 3),
    Step("copies", "ways of a batch to the device; the normalising kernel", _measure("copies")),
    Step("launches", "kernels, graphs and events, as the host pays", _measure("launches")),
    Step("lanes", "batches through lanes and in a bare loop", _measure("lanes"), 3),
    Step("serve", "the server with our own kernel: where tensors may lie", _end_to_end("serve"), 6),
    Step("fault", "a kernel that traps under load, and what comes then", _end_to_end("fault")),
    Step("memory", "a model that asks for more memory than there is", _end_to_end("memory")),
    Step("client", "GPU memory of clients, of CuPy and torch", _own("client_memory"), 2),
    Step("peak", "large matrix products: what shares of the peak are shares of", peak),
    Step("answers", "models on the CUDA provider against the CPU", answers, 2),
    Step("ceiling", "the CUDA provider alone, per batch size", ceiling, 8),
    Step("offline", "LoadGen Offline, in process", _serve("Offline", "engine"), 3),
    Step(
        "server", "LoadGen Server at its latency bound, in process", _serve("Server", "engine"), 4
    ),
    Step("grpc", "LoadGen Offline, over gRPC", _serve("Offline", "grpc"), 3),
    # Last: it has no figures, and may take what the others have left.
    Step("sanitizer", "the native tests under compute-sanitizer", sanitizer, 4),
)
