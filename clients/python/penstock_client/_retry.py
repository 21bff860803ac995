"""When a failed call is sent again, as pure decisions: no I/O, no waiting, no clock of its own.

One `RetryBudget` per client counts how calls fare in general; one `RetryPlan` per call decides
what to do after each failure. Only the driver (`_sync.py`, `_aio.py`) sends and waits.

The rules are those of gRPC's proposal A6 (client retries), with full jitter:

1. Only UNAVAILABLE is retried, and RESOURCE_EXHAUSTED where the server says when to come back (a
   rate limit, not a message that would never fit); and only calls that may safely run twice.
2. At most `max_attempts` sends per call.
3. Token budget: every failure that rule 1 covers takes one token, every success gives
   `token_ratio` back; with half the tokens or fewer left, nothing is retried. A server that is
   down or overloaded thus sees the first sends of its clients, not a multiple of them.
4. `grpc-retry-pushback-ms` in the trailing metadata overrules the back-off: wait exactly that
   long; a negative or unreadable value means do not retry. Back-off starts over after it.
5. A retry that could not start before the caller's deadline is not waited for: the failure is
   reported at once.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock_client.errors import (
    DeadlineExceededError,
    Details,
    ResourceExhaustedError,
    RpcError,
    UnavailableError,
)

PUSHBACK_KEY = "grpc-retry-pushback-ms"

FOREVER_S = 1e9
"""A deadline further away is none: gRPC takes one that it cannot count for one that has passed."""

_PUSHBACK_MAX_DIGITS = 10  # an int32 of milliseconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a client retries; `RetryPolicy(max_attempts=1)` switches retries off.

    The n-th retry waits a random time between 0 and
    `min(max_backoff_s, initial_backoff_s * backoff_multiplier ** (n - 1))`.

    Attributes:
        max_attempts: Sends per call, the first included; at least 1.
        initial_backoff_s: Upper bound of the first wait, seconds.
        backoff_multiplier: Growth of that bound per retry; at least 1.
        max_backoff_s: Bound of the bound, seconds.
        budget_tokens: Size of the retry budget that all calls of the client share.
        token_ratio: Tokens that one successful call puts back.
    """

    max_attempts: int = 4
    initial_backoff_s: float = 0.1
    backoff_multiplier: float = 2.0
    max_backoff_s: float = 5.0
    budget_tokens: float = 100.0
    token_ratio: float = 0.1

    def __post_init__(self) -> None:
        """Refuses values without meaning."""
        checks = {
            "max_attempts must be at least 1": self.max_attempts >= 1,
            "initial_backoff_s must not be negative": self.initial_backoff_s >= 0,
            "backoff_multiplier must be at least 1": self.backoff_multiplier >= 1,
            "max_backoff_s must not be negative": self.max_backoff_s >= 0,
            "budget_tokens must be positive": self.budget_tokens > 0,
            "token_ratio must not be negative": self.token_ratio >= 0,
        }
        faults = [rule for rule, holds in checks.items() if not holds]
        if faults:
            raise ValueError(f"RetryPolicy: {'; '.join(faults)}")

    def backoff_bound_s(self, retry: int) -> float:
        """The longest wait before the given retry, counted from 1."""
        try:
            grown = self.initial_backoff_s * self.backoff_multiplier ** (retry - 1)
        except OverflowError:
            grown = math.inf
        return min(self.max_backoff_s, grown)


class RetryBudget:
    """The token bucket of rule 3, shared by all calls of one client.

    Threading: thread-safe.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        """Starts full."""
        self._max_tokens = policy.budget_tokens
        self._token_ratio = policy.token_ratio
        self._lock = threading.Lock()
        self._tokens = policy.budget_tokens  # guarded by _lock

    def record_success(self) -> None:
        """A call ended OK."""
        with self._lock:
            self._tokens = min(self._max_tokens, self._tokens + self._token_ratio)

    def record_failure(self) -> bool:
        """A call failed in a way that retries are for; returns whether one is affordable."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1.0)
            return self._tokens > self._max_tokens / 2


@dataclass(frozen=True, slots=True)
class Odds:
    """Where time and chance come from; tests put their own in.

    Attributes:
        clock: Monotonic seconds.
        random: A number in [0, 1).
    """

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


class RetryPlan:
    """The life of one call: how long each attempt may take, and what follows a failure.

    Threading: confined to the task or thread of its call.
    Lifecycle: `attempt_timeout_s`, then `succeeded` or `wait_after`; after `wait_after` returned,
    the next `attempt_timeout_s`.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget,
        odds: Odds,
        *,
        deadline_s: float,
        is_retryable: bool,
        model: str = "",
        request_id: str = "",
    ) -> None:
        """Starts the call's clock: `deadline_s` counts from now and may be infinite.

        `model` and `request_id` are put into the errors that this plan raises.
        """
        self._policy = policy
        self._budget = budget
        self._odds = odds
        self._deadline_s = deadline_s
        self._deadline_at = odds.clock() + deadline_s
        self._is_retryable = is_retryable
        self._model = model
        self._request_id = request_id
        self._backoffs = 0
        self.attempts = 0

    def attempt_timeout_s(self) -> float | None:
        """Counts one more attempt; returns the seconds it has, None when there is no deadline.

        Raises:
            DeadlineExceededError: The deadline has passed; nothing is to be sent.
        """
        left_s = self._left_s()
        if not left_s > 0:  # a NaN deadline ends here too
            raise self._labelled(
                DeadlineExceededError(
                    f"the deadline of {self._deadline_s:g} s passed before sending"
                )
            )
        self.attempts += 1
        return None if left_s > FOREVER_S else left_s

    def succeeded(self) -> None:
        """The attempt ended OK."""
        self._budget.record_success()

    def wait_after(self, error: RpcError) -> float:
        """The seconds to wait before the next attempt; raises `error` when there is to be none."""
        if not self._is_retryable or not _is_passing(error):
            raise self._labelled(error)
        affordable = self._budget.record_failure()
        wait_s = self._next_wait_s(error.details)
        is_last = self.attempts >= self._policy.max_attempts
        if is_last or not affordable or wait_s is None or wait_s >= self._left_s():
            raise self._labelled(error)
        return wait_s

    def _labelled(self, error: RpcError) -> RpcError:
        error.attempts = self.attempts
        error.model = error.model or self._model
        error.request_id = error.request_id or self._request_id
        return error

    def _left_s(self) -> float:
        return self._deadline_at - self._odds.clock()

    def _next_wait_s(self, details: Details) -> float | None:
        """Back-off or pushback; None when the server asks not to be called again."""
        if PUSHBACK_KEY in details:
            self._backoffs = 0
            return _pushback_s(details[PUSHBACK_KEY])
        self._backoffs += 1
        return self._policy.backoff_bound_s(self._backoffs) * self._odds.random()


def _is_passing(error: RpcError) -> bool:
    if isinstance(error, ResourceExhaustedError):
        return PUSHBACK_KEY in error.details
    return isinstance(error, UnavailableError)


def _pushback_s(value: str | bytes) -> float | None:
    """Seconds, or None for a negative or unreadable value."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if not (text.isascii() and text.isdigit() and len(text) <= _PUSHBACK_MAX_DIGITS):
        return None
    milliseconds = int(text)
    return milliseconds / 1000 if milliseconds < 2**31 else None
