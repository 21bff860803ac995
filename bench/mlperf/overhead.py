"""What the harness itself costs a sample: the same run with a target that answers at once."""

from __future__ import annotations

from dataclasses import replace

from mlperf.run import run_long_enough
from mlperf.settings import Plan
from mlperf.targets import NullTarget

_SECONDS = 0.3


def overhead_us(plan: Plan) -> float:
    """us of a sample, by a run of the null target of the same kind; its logs are in `overhead`.

    In the scenario of the plan; Server waits for its arrivals most of the time, so there it is
    SingleStream, where LoadGen issues as soon as it has its answer.
    """
    scenario = "SingleStream" if plan.scenario == "Server" else plan.scenario
    short = replace(
        plan,
        scenario=scenario,
        target="null",
        duration_s=_SECONDS,
        is_valid=False,
        held_to=0.0,
        output=plan.output / "overhead",
        rate=1e6,
        latency_s=1e-6,
    )
    result = run_long_enough(short, NullTarget(plan.workload), lambda _: None)
    return 1e6 / result.samples_per_s if result.samples_per_s > 0 else float("nan")
