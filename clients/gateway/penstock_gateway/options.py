"""What the gateway is told: its limits and its habits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MEBIBYTE", "CloudRoutes", "Options", "header_fault"]

MEBIBYTE = 1 << 20

_HEADER = re.compile(r"[0-9a-z_.-]+")
_NEVER = ("connection", "host", "te", "trailer", "transfer-encoding", "upgrade", "keep-alive")
_NEVER_PREFIXES = ("grpc-", "content-", "proxy-", "triton_")


@dataclass(frozen=True, slots=True)
class CloudRoutes:
    """What the clouds that run the container ask for, by environment variables.

    Attributes:
        vertex_health: AIP_HEALTH_ROUTE of Vertex AI; "" = not there.
        vertex_predict: AIP_PREDICT_ROUTE.
        default_model: for routes that name none: SageMaker's /invocations and Vertex's.
    """

    vertex_health: str = ""
    vertex_predict: str = ""
    default_model: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str], default_model: str = "") -> CloudRoutes:
        """As the variables say; a route that is no path is left out."""
        routes = [environment.get(f"AIP_{name}_ROUTE", "") for name in ("HEALTH", "PREDICT")]
        health, predict = (route if route.startswith("/") else "" for route in routes)
        model = default_model or environment.get("SAGEMAKER_TRITON_DEFAULT_MODEL_NAME", "")
        return cls(health, predict, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Limits are of one request unless said otherwise.

    Attributes:
        max_body_bytes: of a request, as it comes and inflated.
        max_json_bytes: of it, as JSON: what is parsed takes many times its text.
        max_buffered_bytes: of the bodies of all requests together.
        max_header_bytes: of the request line and all headers, and of chunks' extensions.
        max_connections: at a time.
        header_timeout_s: from a connection, or the answer before, to the end of the headers.
        body_timeout_s: from there to the end of the body; what has come buys a second per 64 KiB.
        write_timeout_s: for which a client may read nothing of its answer.
        cors_origins: that browsers may call from; "*" = any.
        forward_headers: names, in lower case, that go to the server as metadata, beside those that
            say who calls.
        has_docs: whether /docs and /openapi.json are there.
        clouds: routes beyond the protocol's.
    """

    max_body_bytes: int = 64 * MEBIBYTE
    max_json_bytes: int = 16 * MEBIBYTE
    max_buffered_bytes: int = 1024 * MEBIBYTE
    max_header_bytes: int = 16384
    max_connections: int = 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    cors_origins: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ()
    has_docs: bool = True
    clouds: CloudRoutes = field(default_factory=CloudRoutes)


def header_fault(name: str) -> str | None:
    """Why a header may not be forwarded as metadata; None where it may."""
    if not _HEADER.fullmatch(name):
        return "expected lower-case letters, digits, '-', '_' or '.'"
    if name in _NEVER or name.startswith(_NEVER_PREFIXES) or name.endswith("-bin"):
        return "it has a meaning of its own in gRPC or HTTP"
    return None
