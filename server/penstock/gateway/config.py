"""Settings of `penstock gateway`: flags and `PENSTOCK_*` variables, as the server's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from penstock.errors import ConfigError
from penstock.http_settings import HttpSettings, MetricsTlsSettings
from penstock.setting import field_faults
from penstock.setting import setting as _setting

__all__ = ["GatewayConfig"]

_HOUR_S = 3600
_MAX_INT32 = (1 << 31) - 1


def _upstream(default: Any, help_text: str, **details: Any) -> Any:
    return _setting(default, help_text, group="Upstream", **details)


def _waiting(default: Any, help_text: str, **details: Any) -> Any:
    return _setting(default, help_text, group="Waiting for a server", **details)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(HttpSettings, MetricsTlsSettings):
    """How to stand before a fleet. ConfigError holds all faults at once."""

    upstream: tuple[str, ...] = _upstream(
        (), "HOST:PORT or unix:PATH of a server's gRPC; may be repeated, or separated by commas."
    )
    upstream_use_ssl: bool = _upstream(False, "Call the servers over TLS.")
    upstream_root_cert: str = _upstream(
        "",
        "PEM file of who signs the servers' certificates; read anew when it changes; empty = the"
        " system's.",
    )
    upstream_client_cert: str = _upstream(
        "", "PEM file of the gateway's own certificate chain; read anew when it changes."
    )
    upstream_client_key: str = _upstream(
        "", "PEM file of its private key; read anew when it changes."
    )
    upstream_probe_secs: float = _upstream(
        1.0,
        "Time between two questions to a server whether it is ready.",
        unit="s",
        minimum=0.01,
        maximum=_HOUR_S,
    )
    upstream_timeout_secs: float = _upstream(
        0.0,
        "Deadline of one inference at a server, which is 504; 0 = until its client leaves.",
        unit="s",
        minimum=0,
        maximum=86400,
    )
    max_attempts: int = _upstream(
        3,
        "How often a request is sent, where sending it again is safe.",
        minimum=1,
        maximum=100,
    )

    max_waiting: int = _waiting(
        1000,
        "Requests that wait while no server can be reached; one more is told 503.",
        minimum=0,
        maximum=_MAX_INT32,
    )
    max_waiting_bytes: int = _waiting(
        256 << 20,
        "Bytes of them together.",
        minimum=0,
        maximum=1 << 50,
        unit="bytes",
    )
    max_waiting_secs: float = _waiting(
        30.0, "Time for which one waits.", unit="s", minimum=0, maximum=_HOUR_S
    )

    host: str = _setting("127.0.0.1", "Address to listen on.", group="Addresses")
    http_port: int = _setting(
        8000, "Port for HTTP; 0 = any free one.", minimum=0, maximum=65535, group="Addresses"
    )
    metrics_host: str = _setting(
        "", "Address for metrics; empty = that of --host.", group="Addresses"
    )
    metrics_port: int = _setting(
        -1,
        "Port for metrics, which penstock scaler reads; 0 = any free one, -1 = none.",
        minimum=-1,
        maximum=65535,
        group="Addresses",
    )
    shutdown_grace_secs: float = _setting(
        5.0,
        "Time to go on serving after SIGTERM with readiness false; SIGINT has none.",
        unit="s",
        minimum=0,
        maximum=_HOUR_S,
        group="Shutdown",
    )
    exit_timeout_secs: float = _setting(
        30.0,
        "Time for requests in flight to finish before they are cancelled.",
        unit="s",
        minimum=0,
        maximum=86400,
        group="Shutdown",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "Least severe line that is logged.", group="Logging"
    )
    log_format: Literal["text", "json"] = _setting(
        "text", "Form of a log line on standard error.", group="Logging"
    )
    access_log: bool = _setting(
        False, "Log a line for each call and HTTP request, at level info.", group="Logging"
    )

    def __post_init__(self) -> None:
        faults = [*field_faults(self), *self._rule_faults()]
        if faults:
            raise ConfigError(faults)

    def addresses(self) -> tuple[str, ...]:
        """The upstreams, one each."""
        return tuple(a.strip() for text in self.upstream for a in text.split(",") if a.strip())

    def _rule_faults(self) -> Iterator[str]:
        yield from self.http_faults()
        yield from self.metrics_faults()
        addresses = self.addresses()
        if not addresses:
            yield "--upstream: at least one server is needed"
        if len(set(addresses)) < len(addresses):
            yield "--upstream: a server is named twice"
        for address in addresses:
            _, colon, port = address.rpartition(":")
            if not address.startswith("unix:") and not (colon and port.isdigit()):
                yield f"--upstream: expected HOST:PORT or unix:PATH, got '{address}'"
        files = ("upstream_root_cert", "upstream_client_cert", "upstream_client_key")
        for name in files:
            if getattr(self, name) and not self.upstream_use_ssl:
                yield f"--{name.replace('_', '-')}: needs --upstream-use-ssl=true"
        if bool(self.upstream_client_cert) != bool(self.upstream_client_key):
            yield "--upstream-client-cert: needs --upstream-client-key, and the other way round"
