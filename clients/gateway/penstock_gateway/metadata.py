"""Which headers of an HTTP request become metadata of the call: an allow-list, never all.

What says who calls goes along, so that the server's one admission decides. Anything else a client
sends stays here, unless the operator names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock_gateway.errors import HttpError

__all__ = ["MetadataFilter"]

_CREDENTIALS = ("authorization", "x-api-key")
_CONTEXT = ("traceparent", "tracestate", "x-request-id")
_RESTRICTED_PREFIX = b"triton-grpc-protocol-"
_PRINTABLE = bytes(range(0x20, 0x7F))
_KEY = re.compile(rb"[0-9a-z_.-]+")
"""Names that gRPC takes; HTTP has more."""


class MetadataFilter:
    """Reads headers. Threading: constant after construction."""

    def __init__(self, forward: Iterable[str] = ()) -> None:
        """`forward`: names, in lower case, beyond those of credentials and tracing."""
        names = (*_CREDENTIALS, *_CONTEXT, *forward)
        self._names = {name.encode(): name for name in names}

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
        """The metadata for the call.

        Args:
            headers: as ASGI has them, names in lower case.

        Raises:
            HttpError: one of them comes twice, or holds what metadata cannot. Of those of tracing,
                which decide nothing, the first counts, `tracestate` is joined, and odd ones are
                left out.
        """
        found: dict[str, str] = {}
        for raw, value in headers:
            name = self._names.get(raw)
            if name is None:
                if not raw.startswith(_RESTRICTED_PREFIX):
                    continue
                name = raw.decode("latin-1")
                if name.endswith("-bin") or not _KEY.fullmatch(raw):
                    continue
            is_odd = bool(value.translate(None, _PRINTABLE))
            if name in _CONTEXT:
                if not is_odd:
                    _add_context(found, name, value.decode("ascii").strip(" "))
                continue
            if name in found:
                raise HttpError(400, f"header '{name}' is given more than once")
            if is_odd:
                raise HttpError(400, f"header '{name}' holds more than printable ASCII")
            found[name] = value.decode("ascii").strip(" ")
        return tuple(found.items())


def _add_context(found: dict[str, str], name: str, text: str) -> None:
    if name not in found:
        found[name] = text
    elif name == "tracestate":
        found[name] += f",{text}"
