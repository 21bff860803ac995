"""The second border: what a failure becomes on gRPC. The first is csrc/bindings/errors.cc."""

from __future__ import annotations

import logging
import secrets
from types import MappingProxyType
from typing import Any, NoReturn
from urllib.parse import quote

import grpc

from penstock.errors import Code, CoreError, InternalError

__all__ = ["GRPC_STATUS", "abort", "presentable"]

GRPC_STATUS = MappingProxyType({code: grpc.StatusCode[code.name] for code in Code})

_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_MAX_MESSAGE_BYTES = 6144
"""As sent, percent-encoded: a client refuses trailers of more than 8 KiB, and loses the status."""

_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata that says when to try again (gRPC's proposal A6)."""

_log = logging.getLogger(__name__)


def presentable(error: Exception, rpc: str) -> CoreError:
    """The error as a client may see it.

    What was raised on purpose is shown as it is. Anything else is a defect: its text goes to the
    log under an id, and the client is told the id.
    """
    if isinstance(error, CoreError):
        return error
    incident = secrets.token_hex(4)
    _log.error("%s failed, incident %s", rpc, incident, exc_info=error)
    return InternalError(f"internal error in {rpc}; the server's log has it as incident {incident}")


async def abort(context: Any, error: Exception, rpc: str) -> NoReturn:
    """Ends the RPC with the status of the error; where gRPC itself failed nobody would hear one."""
    if isinstance(error, grpc.aio.InternalError):  # a message met a stream just closed
        raise error
    shown = presentable(error, rpc)
    code = GRPC_STATUS[Code(shown.code)]
    if shown.retry_after_ms is None:
        await context.abort(code, _clipped(shown.message))
    pushback = ((_PUSHBACK_KEY, str(shown.retry_after_ms)),)
    await context.abort(code, _clipped(shown.message), pushback)
    raise AssertionError("abort returned")


def _clipped(message: str) -> str:
    """The message as far as it fits; names in it may be as long as a client likes."""
    kept = message[:_MAX_MESSAGE_BYTES]
    if kept == message and len(quote(message, safe=_UNQUOTED)) <= _MAX_MESSAGE_BYTES:
        return message
    return kept.encode()[: _MAX_MESSAGE_BYTES // 3].decode(errors="ignore") + "..."
