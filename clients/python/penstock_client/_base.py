"""What `Client` and `AsyncClient` have in common: settings, the plan of a call, its headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock_client._messages import METHODS, Method
from penstock_client._operations import Operation, T
from penstock_client._retry import FOREVER_S, Odds, RetryBudget, RetryPlan, RetryPolicy
from penstock_client._transport import Call, Headers
from penstock_client.errors import ClientClosedError

DEFAULT_TIMEOUT_S = 60.0

# Asks for a real status at the first failure of a stream, instead of the text of an error.
_STREAM_STATUS_HEADER = ("triton_grpc_error", "true")


class BaseClient:
    """Everything but the sending.

    Threading: thread-safe.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        retry: RetryPolicy | None,
        headers: Mapping[str, str | bytes] | None,
        odds: Odds | None,
    ) -> None:
        """See `Client`."""
        _check_url(url)
        self._url = url
        self._timeout_s = timeout_s
        self._retry = retry or RetryPolicy()
        self._budget = RetryBudget(self._retry)
        self._headers: Headers = tuple((k.lower(), v) for k, v in (headers or {}).items())
        self._odds = odds or Odds()
        self._is_closed = False

    def __repr__(self) -> str:
        """The class and where it points."""
        return f"{type(self).__name__}({self._url!r})"

    def _plan(self, operation: Operation[T], deadline_s: float | None) -> RetryPlan:
        """Starts the clock of one unary call."""
        return RetryPlan(
            self._retry,
            self._budget,
            self._odds,
            deadline_s=self._timeout_s if deadline_s is None else deadline_s,
            is_retryable=operation.is_retryable,
            model=operation.model,
            request_id=operation.request_id,
        )

    def _next_attempt(self, operation: Operation[T], plan: RetryPlan) -> Call:
        self._check_open()
        trailing: dict[str, str] | None = None if operation.add is None else {}
        return Call(operation.method, plan.attempt_timeout_s(), self._headers, trailing)

    def _stream_call(self, deadline_s: float | None, *, raise_errors: bool) -> Call:
        call = self._open_call(METHODS["ModelStreamInfer"], deadline_s)
        headers = (*call.headers, _STREAM_STATUS_HEADER) if raise_errors else call.headers
        return replace(call, headers=headers)

    def _open_call(self, method: Method, deadline_s: float | None) -> Call:
        """A stream has no deadline unless it is given one: it may live as long as its caller."""
        self._check_open()
        no_limit = deadline_s is None or deadline_s > FOREVER_S
        return Call(method, None if no_limit else deadline_s, self._headers)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError(f"{self!r} is closed")


def _check_url(url: str) -> None:
    scheme, found, _ = url.partition("://")
    if found and scheme in ("http", "https", "grpc", "grpcs"):
        raise ValueError(
            f"url {url!r}: expected a gRPC target such as 'localhost:8001' or 'unix:/run/p.sock', "
            f"without '{scheme}://' (TLS is asked for by `tls`)"
        )
    if not url:
        raise ValueError("url is empty: expected a gRPC target such as 'localhost:8001'")
