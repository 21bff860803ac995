"""bench/gpu: who has how much of a budget, and that a short one reaches what is wanted most."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from gpu import steps
from gpu.bars import SERVER_ASKED, SERVER_OF_OFFLINE, served_table
from gpu.cli import Budget
from gpu.running import TIMED_OUT_STATUS, LeftOut, Ran, StepError
from gpu.step import Context, Step, Within
from gpu.table import Outcome, Row
from tests.support.gpu_samples import H200

SHORT_S, BUILD_S = 540.0, 70.0
SET_UP_S, PROBE_S, RUN_S = 20.0, 4.0, 14.0
"""Of a model on an H200: until LoadGen begins; bert's probe; Offline with --seconds 10."""
MODELS = ("bert", "resnet50")
SERVED = ("offline", "grpc", "server")
HEADLINE = ("build", "device", "peak", "answers", "ceiling", *SERVED, "serve")


def parts(names: Sequence[str], build_s: float = BUILD_S) -> dict[str, float]:
    """What each step has of a short budget where each but `build` takes all that it has."""
    now = [0.0]
    asked = [step for step in steps.STEPS if step.name in names]
    budget = Budget(SHORT_S, asked, now=lambda: now[0])
    found = {}
    for step in asked:
        found[step.name] = budget.part_of(step)
        now[0] += build_s if step.name == "build" else found[step.name]
    return found


@pytest.mark.parametrize("names", [[step.name for step in steps.STEPS], HEADLINE])
def test_short_budget_is_enough_for_every_served_run(names: Sequence[str]) -> None:
    needs_s = len(MODELS) * (SET_UP_S + RUN_S) + PROBE_S
    assert needs_s == 72
    found = parts(names)
    assert sum(found[name] for name in found if name != "build") == pytest.approx(470)
    assert all(found[name] >= needs_s for name in SERVED), found
    assert all(found[name] / len(MODELS) >= SET_UP_S + PROBE_S + RUN_S for name in SERVED), found
    slower = parts(names, build_s=BUILD_S + 40)
    assert all(slower[name] >= needs_s for name in SERVED), slower


def test_steps_of_the_targets_come_first() -> None:
    assert tuple(step.name for step in steps.STEPS[: len(HEADLINE)]) == HEADLINE
    assert steps.STEPS[-1].name == "sanitizer"


def test_build_has_most_of_a_short_budget_since_all_the_others_want_it() -> None:
    budget = Budget(540.0, steps.STEPS, now=lambda: 0.0)
    assert steps.STEPS[0].name == "build"
    assert budget.part_of(steps.STEPS[0]) > 360


def test_budget_is_shared_and_what_a_step_leaves_is_for_the_others() -> None:
    now = [0.0]

    def nothing(context: Context) -> Iterator[Row | str]:
        return iter(())

    large, small, last = (Step(str(share), "", nothing, share) for share in (8, 1, 1))
    budget = Budget(100.0, [large, small, last], now=lambda: now[0])
    assert budget.part_of(large) == 80.0
    now[0] = 20.0
    assert budget.part_of(small) == 40.0
    now[0] = 90.0  # it took longer than it had
    assert budget.part_of(last) == 10.0


def test_programs_of_a_step_have_its_part_together() -> None:
    now, limits = [0.0], []

    def runner(command: Sequence[str], limit_s: float) -> Ran:
        limits.append(limit_s)
        now[0] += 7.0
        return Ran(0, "")

    within = Within(runner, 10.0, now=lambda: now[0])
    within(["a"], 900.0)
    assert within.left_s() == 3.0
    within(["a"], 1.0)
    assert limits == [10.0, 1.0]
    with pytest.raises(StepError, match="its 10 s of the budget are over"):
        within(["a"], 900.0)


class Programs:
    """Programs that take their time on a clock of their own, or all that they are given."""

    def __init__(self, *takes_s: float) -> None:
        self.now_s = 0.0
        self.limits: list[float] = []
        self._takes_s = list(takes_s)

    def __call__(self, command: Sequence[str], limit_s: float) -> Ran:
        self.limits.append(limit_s)
        takes_s = self._takes_s.pop(0)
        self.now_s += min(takes_s, limit_s)
        return Ran(0 if takes_s <= limit_s else TIMED_OUT_STATUS, "")

    def context(self, tmp_path: Path, part_s: float) -> Context:
        """Of a step with that part of the budget."""
        part = Within(self, part_s, now=lambda: self.now_s)
        return Context(H200, part, tmp_path, models=MODELS, left_s=part.left_s)


def one_run(model: str, context: Context) -> Iterator[Row | str]:
    """A step's work for a model, which fails where it is ended."""
    ran = context.run(["a"], 900.0)
    if ran.status:
        raise StepError("was not through")
    yield model


def test_model_that_takes_too_long_leaves_the_other_its_part(tmp_path: Path) -> None:
    programs = Programs(1000.0, 30.0)
    found = programs.context(tmp_path, 80.0).by_model(one_run)
    assert next(found) == "resnet50"
    with pytest.raises(StepError, match="^bert: was not through$"):
        next(found)
    assert programs.limits == pytest.approx([40.0, 40.0], abs=0.1)


def test_what_one_model_leaves_is_for_the_other(tmp_path: Path) -> None:
    programs = Programs(10.0, 65.0)
    assert list(programs.context(tmp_path, 80.0).by_model(one_run)) == list(MODELS)
    assert programs.limits == pytest.approx([40.0, 70.0], abs=0.1)


def test_package_that_is_missing_leaves_out_all_models(tmp_path: Path) -> None:
    asked = []

    def work(model: str, context: Context) -> Iterator[Row | str]:
        asked.append(model)
        yield "a note"
        raise LeftOut("LoadGen is not installed")

    with pytest.raises(LeftOut):
        list(Programs().context(tmp_path, 80.0).by_model(work))
    assert asked == ["bert"]


# ---- what Server is asked for


def rate(value: float) -> Row:
    return Row.single(served_table("Offline", "engine"), "bert", "samples/s", value)


def command_of(tmp_path: Path, scenario: str, target: str, *before: Outcome) -> list[str]:
    """How bert is served where those steps have gone before."""
    asked: list[str] = []

    def runner(command: Sequence[str], limit_s: float) -> Ran:
        asked.extend(command)
        return Ran(1, "nothing came")

    found = {each.step: each for each in before}
    context = Context(H200, runner, tmp_path, models=["bert"], found=found)
    with pytest.raises(StepError, match="bert: bench.mlperf ended with status 1: nothing came"):
        list(partial(steps._serve, scenario)(target)(context))
    return asked


def test_server_is_asked_for_a_little_more_than_its_target_of_offline(tmp_path: Path) -> None:
    offline = Outcome("offline", "failed", (rate(1000.0),))
    command = command_of(tmp_path, "Server", "engine", offline)
    assert command[-2:] == ["--rate", "870.0"]
    assert SERVER_OF_OFFLINE < SERVER_ASKED < SERVER_OF_OFFLINE + 5
    assert "--rate" not in command_of(tmp_path, "Offline", "engine", offline)
    assert "--rate" not in command_of(tmp_path, "Offline", "grpc", offline)


@pytest.mark.parametrize("rows", [None, (), (rate(0.0),)])
def test_server_searches_where_offline_has_found_no_rate(
    rows: tuple[Row, ...] | None, tmp_path: Path
) -> None:
    before = [] if rows is None else [Outcome("offline", "done", rows)]
    assert "--rate" not in command_of(tmp_path, "Server", "engine", *before)
