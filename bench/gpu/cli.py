"""Measures a GPU in steps of a few minutes; what a step found is kept, and not measured again.

The exit status is 0 when every step that was asked for is done or was left out, 1 where one has
failed, 2 where the flags will not do, 3 on a machine without a GPU, 130 where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpu import table
from gpu.bars import bars
from gpu.hardware import Gpu, NoGpuError, find_gpu
from gpu.running import ROOT, LeftOut, Run, StepError, run
from gpu.step import Context, Step
from gpu.steps import STEPS
from gpu.table import Outcome, Row

OK, FAILED, NO_GPU, INTERRUPTED = 0, 1, 3, 130


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags."""
    names = [step.name for step in STEPS]
    about = "\n".join(f"  {step.name:10} {step.does}" for step in STEPS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        epilog=f"steps, in order:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", default=",".join(names), help="some of them, with commas")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-results")
    parser.add_argument("--again", action="store_true", help="also what was done before")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run of LoadGen")
    parser.add_argument("--models", default="bert,resnet50", help="of bench.mlperf, in this order")
    parser.add_argument("--budget", type=float, default=3600.0, help="s, that all steps share")
    args = parser.parse_args(arguments)
    args.steps = args.steps.split(",")
    args.output = args.output.resolve()  # programs of the steps run elsewhere
    if unknown := [name for name in args.steps if name not in names]:
        parser.error(f"no step '{unknown[0]}': expected some of {', '.join(names)}")
    for name in ("seconds", "budget"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name} must be positive")
    return args


def machine_of(gpu: Gpu) -> dict[str, str]:
    """What the figures are true for, and were measured on."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git there
        revision = ""
    return {
        "GPU": f"{gpu.name}, {gpu.multiprocessors} multiprocessors, compute {gpu.capability}",
        "memory": f"{gpu.memory_bytes / 2**30:.1f} GiB",
        "driver": f"CUDA {gpu.driver}",
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "revision": revision or "unknown",
    }


def kept(folder: Path, key: Mapping[str, str]) -> dict[str, Outcome]:
    """What steps did before, on this machine and revision, by name: they need not run again."""
    try:
        content = json.loads((folder / table.RESULTS).read_text())
        found = [Outcome.of(each) for each in content["steps"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {each.step: each for each in found if each.state == "done" and each.key == key}


def do(step: Step, context: Context, key: Mapping[str, str]) -> Outcome:
    """Runs a step to its end, whatever that is."""
    rows: list[Row] = []
    notes: list[str] = []
    state = "done"
    began = time.monotonic()
    try:
        for found in step.work(context):
            if isinstance(found, Row):
                rows.append(found)
            else:
                print(f"{step.name}: {found}", flush=True)
                notes.append(found)
    except LeftOut as reason:
        state = "left out"
        notes.append(str(reason))
    except (StepError, ValueError, OSError) as error:
        state = "failed"
        notes.append(str(error))
    except KeyboardInterrupt:
        state = "interrupted"
    seconds = time.monotonic() - began
    return Outcome(step.name, state, tuple(rows), tuple(notes), seconds, dict(key))


class Budget:
    """Time that steps share: what one leaves is for those after it.

    Threading: thread-compatible.
    """

    def __init__(
        self, seconds: float, steps: Sequence[Step], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins now; `steps` are those that will ask for their part, in that order."""
        self._now = now
        self._end = now() + seconds
        self._to_come = sum(step.share for step in steps)

    def part_of(self, step: Step) -> float:
        """Seconds for the next step, by its share of what is left."""
        left = max(0.0, self._end - self._now()) * step.share / self._to_come
        self._to_come -= step.share
        return left


def main(
    arguments: Sequence[str] | None = None,
    look: Callable[[], Gpu] = find_gpu,
    runner: Run = run,
    steps: Sequence[Step] = STEPS,
) -> int:
    """Runs what was asked for and writes the table; the exit status."""
    args = parse(arguments)
    try:
        gpu = look()
    except NoGpuError as reason:
        print(f"bench.gpu: nothing was measured: {reason}", file=sys.stderr)
        return NO_GPU
    key = {**machine_of(gpu), "LoadGen": f"{args.seconds:g} s each, {args.models}"}
    args.output.mkdir(parents=True, exist_ok=True)
    before = kept(args.output, key)
    models = args.models.split(",")
    context = Context(gpu, runner, args.output, args.seconds, models, found=dict(before))
    asked = [step for step in steps if step.name in args.steps]
    budget = Budget(args.budget, [step for step in asked if args.again or step.name not in before])
    try:
        for step in asked:
            if step.name in before and not args.again:
                print(f"{step.name}: done before", flush=True)
                continue
            found = _run(step, context, key, budget)
            is_interrupted = found.state == "interrupted"
            if not (is_interrupted and step.name in before):
                context.found[step.name] = found
            outcomes = [context.found[each.name] for each in steps if each.name in context.found]
            summary = bars(outcomes)
            table.write(args.output, key, [*outcomes, *([summary] if summary else [])])
            if is_interrupted:
                return INTERRUPTED
    except KeyboardInterrupt:  # between two
        return INTERRUPTED
    print(f"bench.gpu: {args.output / 'results.md'}")
    return FAILED if any(each.state == "failed" for each in context.found.values()) else OK


def _run(step: Step, context: Context, key: Mapping[str, str], budget: Budget) -> Outcome:
    part = budget.part_of(step)
    print(f"{step.name}: {step.does}, {part:.0f} s at most ...", flush=True)
    found = do(step, context.within(part), key)
    reason = f": {found.notes[-1]}" if found.state != "done" and found.notes else ""
    print(f"{step.name}: {found.state} in {found.seconds:.0f} s{reason}", flush=True)
    return found
