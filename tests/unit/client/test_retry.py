"""The retry rules as pure decisions, under a clock that the test moves."""

import math
from typing import Any

import pytest
from tests.unit.client.kinds import Clock

from penstock_client import (
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    RetryPolicy,
    RpcError,
    UnavailableError,
)
from penstock_client._retry import PUSHBACK_KEY, RetryBudget, RetryPlan

POLICY = RetryPolicy(
    max_attempts=4, initial_backoff_s=1.0, backoff_multiplier=3.0, max_backoff_s=5.0
)


def make_plan(
    clock: Clock,
    policy: RetryPolicy = POLICY,
    *,
    budget: RetryBudget | None = None,
    deadline_s: float = math.inf,
    chance: float = 1.0,
    **labels: Any,
) -> RetryPlan:
    return RetryPlan(
        policy,
        budget or RetryBudget(policy),
        clock.odds(chance),
        deadline_s=deadline_s,
        **{"is_retryable": True, **labels},
    )


def unavailable(pushback: str | bytes | None = None) -> UnavailableError:
    details = {} if pushback is None else {PUSHBACK_KEY: pushback}
    return UnavailableError("Exceeds maximum queue size", details=details)


def test_waits_grow_to_their_bound_then_the_last_failure_is_raised() -> None:
    plan = make_plan(Clock())
    waits = []
    for _ in range(3):
        plan.attempt_timeout_s()
        waits.append(plan.wait_after(unavailable()))
    assert waits == [1.0, 3.0, 5.0]
    plan.attempt_timeout_s()
    last = unavailable()
    with pytest.raises(UnavailableError) as caught:
        plan.wait_after(last)
    assert caught.value is last
    assert last.attempts == 4


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999])
def test_wait_is_jittered_from_zero_to_the_bound(chance: float) -> None:
    plan = make_plan(Clock(), chance=chance)
    plan.attempt_timeout_s()
    assert plan.wait_after(unavailable()) == 1.0 * chance


def test_one_attempt_switches_retries_off() -> None:
    plan = make_plan(Clock(), RetryPolicy(max_attempts=1))
    plan.attempt_timeout_s()
    with pytest.raises(UnavailableError):
        plan.wait_after(unavailable())


@pytest.mark.parametrize(
    ("error", "is_retryable"),
    [
        pytest.param(InternalError("boom"), True, id="other-code"),
        pytest.param(DeadlineExceededError("late"), True, id="deadline"),
        pytest.param(unavailable(), False, id="call-that-must-not-run-twice"),
        pytest.param(unavailable("5"), False, id="pushback-does-not-overrule-that"),
    ],
)
def test_failure_that_is_not_retried_costs_no_token(error: RpcError, is_retryable: bool) -> None:
    budget = RetryBudget(RetryPolicy(budget_tokens=2.1))  # one failure is affordable, two are not
    plan = make_plan(Clock(), budget=budget, is_retryable=is_retryable)
    plan.attempt_timeout_s()
    with pytest.raises(type(error)):
        plan.wait_after(error)
    assert budget.record_failure()


@pytest.mark.parametrize(("text", "wait_s"), [("0", 0.0), ("250", 0.25), (b"1500", 1.5)])
def test_pushback_is_waited_for_exactly(text: str | bytes, wait_s: float) -> None:
    plan = make_plan(Clock(), chance=0.5)
    plan.attempt_timeout_s()
    assert plan.wait_after(unavailable(text)) == wait_s


@pytest.mark.parametrize(
    "text", ["-1", "", "soon", "1.5", "+5", " 5", "\u0665", "9999999999", b"\xff"]
)
def test_negative_or_unreadable_pushback_means_no_retry(text: str | bytes) -> None:
    plan = make_plan(Clock())
    plan.attempt_timeout_s()
    with pytest.raises(UnavailableError):
        plan.wait_after(unavailable(text))


def test_rate_limit_that_says_when_is_waited_for() -> None:
    plan = make_plan(Clock())
    plan.attempt_timeout_s()
    error = ResourceExhaustedError("over its limit", details={PUSHBACK_KEY: "250"})
    assert plan.wait_after(error) == 0.25


def test_resource_exhausted_that_says_nothing_is_final() -> None:
    plan = make_plan(Clock())
    plan.attempt_timeout_s()
    with pytest.raises(ResourceExhaustedError):
        plan.wait_after(ResourceExhaustedError("too large"))


def test_backoff_starts_over_after_pushback() -> None:
    plan = make_plan(Clock())
    waits = []
    for pushback in (None, "10", None):
        plan.attempt_timeout_s()
        waits.append(plan.wait_after(unavailable(pushback)))
    assert waits == [1.0, 0.01, 1.0]


def test_each_attempt_gets_what_is_left_of_the_deadline() -> None:
    clock = Clock()
    plan = make_plan(clock, deadline_s=10.0)
    assert plan.attempt_timeout_s() == 10.0
    clock.advance(2.0)
    clock.sleep(plan.wait_after(unavailable()))
    assert plan.attempt_timeout_s() == 7.0


@pytest.mark.parametrize(("chance", "is_raised"), [(0.999, False), (1.0, True)])
def test_wait_that_reaches_the_deadline_is_not_begun(chance: float, is_raised: bool) -> None:
    plan = make_plan(Clock(), deadline_s=1.0, chance=chance)
    plan.attempt_timeout_s()
    if is_raised:
        with pytest.raises(UnavailableError):
            plan.wait_after(unavailable())
    else:
        assert plan.wait_after(unavailable()) == 0.999


def test_pushback_beyond_the_deadline_is_not_waited_for() -> None:
    plan = make_plan(Clock(), deadline_s=1.0)
    plan.attempt_timeout_s()
    with pytest.raises(UnavailableError):
        plan.wait_after(unavailable("1001"))


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, math.nan, -math.inf])
def test_deadline_in_the_past_sends_nothing(deadline_s: float) -> None:
    plan = make_plan(Clock(), deadline_s=deadline_s, model="m", request_id="r")
    with pytest.raises(DeadlineExceededError, match="passed before sending.*model 'm'") as caught:
        plan.attempt_timeout_s()
    assert caught.value.attempts == 0
    assert caught.value.request_id == "r"


def test_no_deadline_is_no_timeout() -> None:
    for deadline_s in (math.inf, 1e300):
        assert make_plan(Clock(), deadline_s=deadline_s).attempt_timeout_s() is None


def test_budget_stops_retries_at_half_its_tokens_until_successes_refill_it() -> None:
    budget = RetryBudget(RetryPolicy(budget_tokens=4.0, token_ratio=0.5))
    assert [budget.record_failure() for _ in range(3)] == [True, False, False]
    for _ in range(4):  # 1 + 4 x 0.5 = 3 tokens
        budget.record_success()
    assert not budget.record_failure()
    for _ in range(100):  # full again, never over
        budget.record_success()
    assert [budget.record_failure() for _ in range(2)] == [True, False]


def test_budget_never_falls_below_zero() -> None:
    budget = RetryBudget(RetryPolicy(budget_tokens=4.0, token_ratio=1.0))
    for _ in range(50):
        budget.record_failure()
    for _ in range(4):
        budget.record_success()
    assert budget.record_failure()


def test_plans_of_one_client_share_its_budget() -> None:
    budget = RetryBudget(RetryPolicy(budget_tokens=4.0))
    first, second = (make_plan(Clock(), budget=budget) for _ in range(2))
    first.attempt_timeout_s()
    assert first.wait_after(unavailable()) == 1.0
    second.attempt_timeout_s()
    with pytest.raises(UnavailableError):
        second.wait_after(unavailable())


def test_error_is_labelled_with_what_the_call_was_about() -> None:
    plan = make_plan(Clock(), model="digits", request_id="r7")
    plan.attempt_timeout_s()
    with pytest.raises(InternalError) as caught:
        plan.wait_after(InternalError("boom"))
    assert (caught.value.model, caught.value.request_id) == ("digits", "r7")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_attempts", 0),
        ("initial_backoff_s", -0.1),
        ("backoff_multiplier", 0.5),
        ("max_backoff_s", -1.0),
        ("budget_tokens", 0.0),
        ("token_ratio", -0.1),
        ("max_backoff_s", math.nan),
    ],
)
def test_policy_without_meaning_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        RetryPolicy(**{setting: value})  # type: ignore[arg-type]


def test_backoff_of_very_many_retries_is_the_bound() -> None:
    policy = RetryPolicy(max_attempts=10**6, max_backoff_s=7.0, backoff_multiplier=10.0)
    assert policy.backoff_bound_s(10**6) == 7.0
