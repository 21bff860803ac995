"""Failures, and what they are on HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_gateway.upstream import PUSHBACK, Code, UpstreamError

__all__ = ["STATUS", "ClientGoneError", "HttpError", "as_http_error"]

STATUS: Mapping[int, int] = {
    Code.CANCELLED: 400,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 400,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""HTTP status by gRPC code; where Triton has one it is Triton's."""

_RESTRICTED = "This protocol is restricted, "
_DECOUPLED = "ModelInfer RPC doesn't support models with decoupled transaction policy"
_RETRY_AFTER_S = 1
_MOST_RETRY_AFTER_S = 3600


class HttpError(Exception):
    """The answer is `{"error": message}` with this status."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """The client left before its request was whole; nobody reads an answer."""


def as_http_error(error: UpstreamError) -> HttpError:
    """The server's words, with the status that Triton's clients expect."""
    if error.code == Code.UNAVAILABLE and error.message.startswith(_RESTRICTED):
        return HttpError(403, error.message.replace(_RESTRICTED, "This API is restricted, ", 1))
    if error.code == Code.UNIMPLEMENTED and error.message.startswith(_DECOUPLED):
        text = error.message.replace("ModelInfer RPC", "HTTP end point", 1)
        return HttpError(501, text)
    status = STATUS.get(error.code, 500)
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status in (429, 503):
        headers["retry-after"] = str(_retry_after_s(error))
    return HttpError(status, error.message, headers)


def _retry_after_s(error: UpstreamError) -> int:
    try:
        milliseconds = int(error.trailing.get(PUSHBACK, ""))
    except ValueError:
        return _RETRY_AFTER_S
    return min(max(_RETRY_AFTER_S, -(-milliseconds // 1000)), _MOST_RETRY_AFTER_S)
