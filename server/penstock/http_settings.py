"""The settings of HTTP, for a server and for a gateway of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from penstock.setting import setting

__all__ = ["HttpSettings", "MetricsTlsSettings", "tls_faults"]

_MEBIBYTE = 1 << 20
_MAX_INT32 = (1 << 31) - 1
_HOUR_S = 3600


def _setting(default: Any, help_text: str, **details: Any) -> Any:
    return setting(default, help_text, group="HTTP", **details)


def _metrics(default: Any, help_text: str) -> Any:
    return setting(default, help_text, group="Metrics")


def _seconds(default: float, help_text: str) -> Any:
    return _setting(default, help_text, unit="s", minimum=0.01, maximum=_HOUR_S)


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Bounds and habits of the HTTP gateway. `http_faults` says what does not fit."""

    http_use_ssl: bool = _setting(False, "Serve HTTP over TLS only.")
    http_use_ssl_mutual: bool = _setting(
        False, "Ask HTTP clients for a certificate of --http-root-cert (TLS 1.3 only)."
    )
    http_server_cert: str = _setting(
        "", "PEM file of the HTTP port's certificate chain; read anew when it changes."
    )
    http_server_key: str = _setting(
        "", "PEM file of that certificate's private key; read anew when it changes."
    )
    http_root_cert: str = _setting(
        "", "PEM file of who signs HTTP clients' certificates; read anew when it changes."
    )
    http_max_input_size: int = _setting(
        64 * _MEBIBYTE,
        "Greatest body of a request, as it comes and inflated.",
        minimum=1024,
        maximum=_MAX_INT32,
        unit="bytes",
    )
    http_max_json_size: int = _setting(
        16 * _MEBIBYTE,
        "Greatest JSON of a request, within its body: parsed it takes up to 45 times its bytes.",
        minimum=1024,
        maximum=_MAX_INT32,
        unit="bytes",
    )
    http_max_buffered_bytes: int = _setting(
        1024 * _MEBIBYTE,
        "Bytes of bodies being received or not yet answered, of all requests together; beyond them"
        " the answer is 503.",
        minimum=1024,
        maximum=1 << 50,
        unit="bytes",
    )
    http_max_header_bytes: int = _setting(
        16384,
        "Greatest head of a request: its line and all headers.",
        minimum=1024,
        maximum=_MEBIBYTE,
        unit="bytes",
    )
    http_max_connections: int = _setting(
        1024,
        "HTTP connections at a time; one more is told 503. Over TLS those that shake hands count,"
        " and one more is closed.",
        minimum=1,
        maximum=_MAX_INT32,
    )
    http_header_timeout_secs: float = _seconds(
        10.0, "Time from a connection, or the answer before, to the end of a request's headers."
    )
    http_body_timeout_secs: float = _seconds(
        30.0, "Time for a request's body; what has come prolongs it, by a second per 64 KiB."
    )
    http_write_timeout_secs: float = _seconds(
        60.0, "Time for which a client may read nothing of its answer."
    )
    http_cors_origin: tuple[str, ...] = _setting(
        (), "Origin whose pages in browsers may call; may be repeated, * = any."
    )
    http_forward_header: tuple[str, ...] = _setting(
        (), "Header that is handed on as metadata of the call; may be repeated."
    )
    http_default_model: str = _setting(
        "", "Model of /invocations and of Vertex AI's predict route, which name none."
    )
    http_docs: bool = _setting(True, "Serve /docs and /openapi.json.")

    def http_faults(self) -> Iterator[str]:
        """What does not fit."""
        yield from tls_faults(self, "http", "HTTP")
        if not self.http_forward_header:
            return
        from penstock_gateway.options import header_fault

        for name in self.http_forward_header:
            fault = header_fault(name.lower())
            if fault:
                yield f"--http-forward-header: '{name}': {fault}"


@dataclass(frozen=True, kw_only=True)
class MetricsTlsSettings:
    """TLS of the metrics port. `metrics_faults` says what does not fit."""

    metrics_use_ssl: bool = _metrics(False, "Serve metrics over TLS only.")
    metrics_use_ssl_mutual: bool = _metrics(
        False,
        "Ask who reads metrics for a certificate of --metrics-root-cert (TLS 1.3 only).",
    )
    metrics_server_cert: str = _metrics(
        "", "PEM file of the metrics port's certificate chain; read anew when it changes."
    )
    metrics_server_key: str = _metrics(
        "", "PEM file of that certificate's private key; read anew when it changes."
    )
    metrics_root_cert: str = _metrics(
        "", "PEM file of who signs the certificates of readers; read anew when it changes."
    )

    def metrics_faults(self) -> Iterator[str]:
        """What does not fit."""
        yield from tls_faults(self, "metrics", "metrics")


def tls_faults(settings: object, side: str, what: str) -> Iterator[str]:
    """What does not fit of a port's TLS: `side` is how its settings begin, `what` it serves."""

    def of(name: str) -> Any:
        return getattr(settings, f"{side}_{name}")

    use, mutual = f"--{side}-use-ssl", f"--{side}-use-ssl-mutual"
    is_needed = {
        "server_cert": of("use_ssl"),
        "server_key": of("use_ssl"),
        "root_cert": of("use_ssl_mutual"),
    }
    for name, is_missed in is_needed.items():
        flag = f"--{side}-{name.replace('_', '-')}"
        if is_missed and not of(name):
            yield f"{flag}: needed to serve {what} over TLS"
        if of(name) and not of("use_ssl"):
            yield f"{flag}: needs {use}=true"
    if of("use_ssl_mutual") and not of("use_ssl"):
        yield f"{mutual}: needs {use}=true"
    if of("root_cert") and of("use_ssl") and not of("use_ssl_mutual"):
        yield f"--{side}-root-cert: needs {mutual}=true"
