"""The steps, each of a few minutes: what to build, to test, to measure.

Their order is that of how much they are wanted where time is short: what the targets need, then the
rest. Shares are seconds of a budget of 540 of which `build` took 70, on a machine where that was
measured; `build` itself has what a slower one may need, since all the others want it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gpu.bars import (
    OPERATIONS,
    SERVER_ASKED,
    SERVER_OF_OFFLINE,
    ceiling_table,
    not_valid,
    served_table,
)
from gpu.building import build
from gpu.parsing import last_line, notes_in, parse_gtest, parse_mlperf, parse_sanitizer
from gpu.running import BUILD, LeftOut, StepError, succeed
from gpu.step import LIMIT_S, Context, Found, Step
from gpu.table import Row, parse_rows

_PRECISION = "fp32"  # that of bench.mlperf's models
_SUTS = {
    "C++": "native (C++)",
    "Python": "Python, whose own limit may be less than the server's",
}
_REFUSED = "Device not supported"  # by compute-sanitizer, on some virtual machines


def _program(*parts: str) -> str:
    path = BUILD.joinpath(*parts)
    if not path.exists():
        raise LeftOut(f"{path.name} is not built: run the step `build`")
    return str(path)


def device(context: Context) -> Found:
    """The native tests of csrc/gpu on the real device: the kernels' numbers, lanes, faults, IPC.

    First those that need one; the others run anywhere.
    """
    for name in ("cuda_test", "gpu_test"):
        ran = context.run([_program("tests", "native", "gpu", name)], LIMIT_S)
        try:
            tests = parse_gtest(ran.output)
        except ValueError as error:
            told = f"{name}: {error} (status {ran.status}): {last_line(ran.output)}"
            raise StepError(told) from None
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
    yield from _own("peak", "--seconds", str(min(context.seconds, 1.0)))(context)


def answers(context: Context) -> Found:
    """Models on the CUDA provider against the CPU."""
    return context.by_model(lambda model, part: _own("answers", "--model", model)(part))


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
    return context.by_model(_ceiling_of)


def _ceiling_of(model: str, context: Context) -> Found:
    command = [sys.executable, "-m", "bench.gpu.bare_loop", "--model", model]
    ran = context.try_run([*command, "--seconds", str(min(context.seconds, 2.0))])
    rows = parse_rows(ran.output)
    yield from with_shares(rows, context, operations_in(rows, model))
    succeed(ran, "bare_loop")


def _serve(scenario: str, target: str) -> Callable[[Context], Found]:
    return lambda context: context.by_model(partial(_serve_one, scenario, target))


def _serve_one(scenario: str, target: str, model: str, context: Context) -> Found:
    folder = context.output / f"{model}-{scenario.lower()}-{target}"
    command = [sys.executable, "-m", "bench.gpu.served", "--model", model]
    command += ["--scenario", scenario, "--target", target, "--output", str(folder)]
    command += ["--duration", str(context.seconds)]
    if scenario == "Server" and (rate := server_rate(model, context)):
        command += ["--rate", f"{rate:.1f}"]
        yield (
            f"of {model} {rate:,.1f}/s were asked, {SERVER_ASKED:g} % of Offline's: one run says "
            f"whether {SERVER_OF_OFFLINE:g} % are reached, and not what the most would be"
        )
    results = folder / "results.json"
    results.unlink(missing_ok=True)  # an earlier run's are not this one's
    ran = context.try_run(command)
    if not results.exists():
        succeed(ran, "bench.mlperf")
        raise StepError("bench.mlperf left no results")
    found = list(served_rows(model, scenario, target, results.read_text()))
    before = context.found.get("ceiling")
    operations = operations_in(before.rows, model) if before else None
    rows = [each for each in found if isinstance(each, Row)]
    yield from with_shares(rows, context, operations)
    yield from (each for each in found if not isinstance(each, Row))


def server_rate(model: str, context: Context) -> float | None:
    """What Server is asked for, by what Offline reached in process; None: it has to search."""
    before = context.found.get("offline")
    table = served_table("Offline", "engine")
    reached = (
        [row.median for row in before.rows if (row.table, row.what) == (table, model)]
        if before
        else []
    )
    return reached[0] * SERVER_ASKED / 100 if reached and reached[0] > 0 else None


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
    if scenario == "Server" and found.p99_ms is not None:
        yield Row.single(table, f"{model}, p99", "ms", found.p99_ms)
    if found.batch_rows is not None:
        yield Row.single(table, f"{model}, mean batch", "rows", found.batch_rows)
    if found.sut:
        yield f"the system under test of {model} was {_SUTS.get(found.sut, found.sut)}"
    if found.verdict != "VALID":
        yield not_valid(model, "; ".join([found.verdict, *found.reasons]))


STEPS = (
    Step("build", "builds for this GPU and this Python", build, 1000),
    Step("device", "the native tests on the real device", device, 16),
    Step("peak", "large matrix products: what shares of the peak are shares of", peak, 12),
    Step("answers", "models on the CUDA provider against the CPU", answers, 28),
    Step("ceiling", "the CUDA provider alone, per batch size", ceiling, 68),
    Step("offline", "LoadGen Offline, in process", _serve("Offline", "engine"), 84),
    Step("grpc", "LoadGen Offline, over gRPC", _serve("Offline", "grpc"), 90),
    Step("server", "LoadGen Server within its latency, in process", _serve("Server", "engine"), 80),
    Step(
        "serve", "the server with our own kernel: where tensors may lie", _end_to_end("serve"), 42
    ),
    Step("fault", "a kernel that traps under load, and what comes then", _end_to_end("fault"), 8),
    Step("memory", "a model that asks for more memory than there is", _end_to_end("memory"), 8),
    Step("client", "GPU memory of clients, of CuPy and torch", _own("client_memory"), 10),
    Step("copies", "ways of a batch to the device; the normalising kernel", _measure("copies")),
    Step("launches", "kernels, graphs and events, as the host pays", _measure("launches")),
    Step("lanes", "batches through lanes and in a bare loop", _measure("lanes"), 6),
    # Last: it has no figures, and may take what the others have left.
    Step("sanitizer", "the native tests under compute-sanitizer", sanitizer, 16),
)
