"""Settings of `penstock scaler`: flags and `PENSTOCK_*` variables, as the server's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from penstock.errors import ConfigError
from penstock.scaling.fleet import FleetOptions
from penstock.scaling.http_get import Target
from penstock.scaling.policy import PolicySettings
from penstock.scaling.reader_tls import ReaderTls
from penstock.setting import field_faults
from penstock.setting import setting as _setting

__all__ = ["ScalerConfig", "targets_of"]

_DAY_S = 86400


def _fleet(default: Any, help_text: str, **details: Any) -> Any:
    return _setting(default, help_text, group="Fleet", **details)


def _policy(default: Any, help_text: str, **details: Any) -> Any:
    return _setting(default, help_text, group="Policy", **details)


def _seconds(maximum: float = _DAY_S, minimum: float = 0) -> dict[str, Any]:
    return {"unit": "s", "minimum": minimum, "maximum": maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerConfig:
    """How to watch a fleet, what to aim at, whom to tell. ConfigError holds all faults at once."""

    replica: tuple[str, ...] = _fleet(
        (),
        "HOST:PORT of a server's metrics; a name with many addresses is many servers; may be "
        "repeated, or separated by commas.",
    )
    gateway: tuple[str, ...] = _fleet(
        (), "HOST:PORT of a gateway's metrics, which tell of requests held while no server is up."
    )
    interval_secs: float = _fleet(
        1.0, "Time between two rounds of asking everybody.", **_seconds(3600, 0.01)
    )
    replica_timeout_secs: float = _fleet(2.0, "Time for one answer.", **_seconds(60, 0.01))
    stale_secs: float = _fleet(
        10.0, "Age from which a replica's last answer counts no more.", **_seconds(3600, 0.1)
    )
    forget_secs: float = _fleet(
        300.0,
        "Time without an answer after which a replica no longer keeps others from being removed.",
        **_seconds(),
    )
    window_secs: float = _fleet(30.0, "Time over which rates are taken.", **_seconds(3600, 0.1))

    metrics_use_ssl: bool = _fleet(False, "Ask for metrics over TLS only.")
    metrics_root_cert: str = _fleet(
        "",
        "PEM file of who signs the certificates of metrics ports; read anew when it changes; empty"
        " = the system's.",
    )
    metrics_client_cert: str = _fleet(
        "", "PEM file of the scaler's own certificate chain; read anew when it changes."
    )
    metrics_client_key: str = _fleet("", "PEM file of its private key; read anew when it changes.")

    min_replicas: int = _policy(
        1, "Never advise fewer; 0 = none once a model is idle.", minimum=0, maximum=10_000
    )
    max_replicas: int = _policy(10, "Never advise more.", minimum=1, maximum=10_000)
    target_utilisation: float = _policy(
        0.7,
        "Share of the instances' time that is to be busy; the rest is head-room.",
        minimum=0.01,
        maximum=1,
    )
    target_queue_age_ms: float = _policy(
        500.0,
        "Where requests wait longer, and instances are busy, there are more replicas.",
        unit="ms",
        minimum=1,
        maximum=3_600_000,
    )
    drain_secs: float = _policy(10.0, "Time to serve what waits.", **_seconds(3600, 0.1))
    up_window_secs: float = _policy(0.0, "Time for which a rise must last.", **_seconds(3600))
    down_window_secs: float = _policy(300.0, "Time for which a fall must last.", **_seconds())
    idle_secs: float = _policy(
        300.0, "Time without requests after which a model is inactive.", **_seconds()
    )
    activation_rate: float = _policy(
        0.0, "Requests per second up to which a model counts as idle.", minimum=0, maximum=1e9
    )

    webhook_url: str = _setting(
        "", "http:// or https:// URL that is told of each decision.", group="Hooks"
    )
    webhook_secret_file: str = _setting(
        "", "File of the secret that its messages are signed with.", group="Hooks"
    )
    webhook_timeout_secs: float = _setting(
        5.0, "Time for one attempt.", group="Hooks", **_seconds(60, 0.01)
    )
    plugin: tuple[str, ...] = _setting(
        (), "Name of an entry point of penstock.scaling to call; may be repeated.", group="Hooks"
    )

    host: str = _setting("127.0.0.1", "Address to listen on.", group="Addresses")
    grpc_port: int = _setting(
        8003, "Port for KEDA; 0 = any free one.", minimum=0, maximum=65535, group="Addresses"
    )
    grpc_use_ssl: bool = _setting(False, "Serve over TLS only.", group="TLS")
    grpc_use_ssl_mutual: bool = _setting(
        False, "Ask KEDA for a certificate of --grpc-root-cert.", group="TLS"
    )
    grpc_server_cert: str = _setting("", "PEM file of the certificate chain.", group="TLS")
    grpc_server_key: str = _setting("", "PEM file of its private key.", group="TLS")
    grpc_root_cert: str = _setting("", "PEM file of who signs KEDA's certificate.", group="TLS")
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "Least severe line that is logged.", group="Logging"
    )
    log_format: Literal["text", "json"] = _setting(
        "text", "Form of a log line on standard error.", group="Logging"
    )

    def __post_init__(self) -> None:
        faults = [*field_faults(self), *self._rule_faults()]
        if faults:
            raise ConfigError(faults)

    def policy(self) -> PolicySettings:
        """What is aimed at."""
        return PolicySettings(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_utilisation=self.target_utilisation,
            target_queue_age_s=self.target_queue_age_ms / 1e3,
            drain_s=self.drain_secs,
            up_window_s=self.up_window_secs,
            down_window_s=self.down_window_secs,
            idle_s=self.idle_secs,
            activation_rate=self.activation_rate,
        )

    def fleet(self) -> FleetOptions:
        """How to ask; StartupError where certificates will not do."""
        files = (self.metrics_root_cert, self.metrics_client_cert, self.metrics_client_key)
        return FleetOptions(
            replicas=tuple(targets_of(self.replica)),
            gateways=tuple(targets_of(self.gateway)),
            window_s=self.window_secs,
            timeout_s=self.replica_timeout_secs,
            stale_s=self.stale_secs,
            forget_s=self.forget_secs,
            tls=ReaderTls(*files) if self.metrics_use_ssl else None,
        )

    def _rule_faults(self) -> Iterator[str]:
        for flag, texts in (("--replica", self.replica), ("--gateway", self.gateway)):
            try:
                found = targets_of(texts)
            except ValueError as error:
                yield f"{flag}: {error}"
                continue
            if len(set(found)) < len(found):
                yield f"{flag}: an address is named twice"
            if flag == "--replica" and not found:
                yield "--replica: at least one is needed"
        if self.max_replicas < self.min_replicas:
            yield f"--max-replicas: {self.max_replicas} is less than --min-replicas"
        if self.webhook_url and not self.webhook_url.startswith(("http://", "https://")):
            yield f"--webhook-url: expected http:// or https://, got '{self.webhook_url}'"
        if bool(self.webhook_url) != bool(self.webhook_secret_file):
            yield "--webhook-url: needs --webhook-secret-file, and the other way round"
        pair = bool(self.grpc_server_cert) and bool(self.grpc_server_key)
        if self.grpc_use_ssl and not pair:
            yield "--grpc-use-ssl: needs --grpc-server-cert and --grpc-server-key"
        yield from self._reader_faults()
        if self.grpc_use_ssl_mutual and not (self.grpc_use_ssl and self.grpc_root_cert):
            yield "--grpc-use-ssl-mutual: needs --grpc-use-ssl and --grpc-root-cert"

    def _reader_faults(self) -> Iterator[str]:
        for name in ("metrics_root_cert", "metrics_client_cert", "metrics_client_key"):
            if getattr(self, name) and not self.metrics_use_ssl:
                yield f"--{name.replace('_', '-')}: needs --metrics-use-ssl=true"
        if bool(self.metrics_client_cert) != bool(self.metrics_client_key):
            yield "--metrics-client-cert: needs --metrics-client-key, and the other way round"


def targets_of(texts: tuple[str, ...]) -> list[Target]:
    """HOST:PORT each, several in one text separated by commas; ValueError for anything else."""
    found = []
    for text in (part.strip() for each in texts for part in each.split(",")):
        if not text:
            continue
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"expected HOST:PORT, got '{text}'")
        found.append((host, int(port)))
    return found
