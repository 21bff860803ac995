"""Settings of the server: one frozen dataclass, the source of flags and environment variables.

Every field carries a `Setting`: what it means, its unit, its bounds and the flags that set it.
The command line makes `--grpc-port` and `PENSTOCK_GRPC_PORT` out of `grpc_port`; there is no file.
Models have their own configuration (`config.pbtxt`), which is no business of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from penstock import __version__
from penstock.built_settings import BuiltSettings
from penstock.errors import ConfigError
from penstock.http_settings import HttpSettings, MetricsTlsSettings
from penstock.operation_settings import OperationSettings
from penstock.setting import SettingField, field_faults, fields_of, parse_size, read_texts
from penstock.setting import setting as _setting
from penstock.store_settings import StoreSettings

__all__ = ["MEBIBYTE", "ServerConfig", "setting_fields"]

MEBIBYTE = 1 << 20
_MAX_INT32 = (1 << 31) - 1
_MAX_PORT = 65535
_LEAST_WITH_JOBS = 3


def _port(default: int, help_text: str) -> Any:
    return _setting(default, help_text, minimum=0, maximum=_MAX_PORT, group="Addresses")


def _limit(default: float, help_text: str, minimum: float = 0, **details: Any) -> Any:
    details = {"maximum": _MAX_INT32, "group": "Limits", **details}
    return _setting(default, help_text, minimum=minimum, **details)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(
    StoreSettings, HttpSettings, MetricsTlsSettings, OperationSettings, BuiltSettings
):
    """How to serve. Construction checks every field; ConfigError holds all faults at once."""

    model_repository: tuple[Path, ...] = _setting(
        (), "Directory of models; may be repeated.", flags=("--model-store",), group="Models"
    )
    model_control_mode: Literal["none", "poll", "explicit"] = _setting(
        "none",
        "none: serve every model found at start; poll: and follow every change of the directories;"
        " explicit: load and unload on request.",
        group="Models",
    )
    repository_poll_secs: float = _setting(
        15.0,
        "Time between two looks at the directories in mode poll; a change is taken up by the second"
        " look that sees it.",
        unit="s",
        minimum=0.02,  # more than a tick of the clock that writes are stamped with
        maximum=86400,
        group="Models",
    )
    load_model: tuple[str, ...] = _setting(
        (),
        "Model to load at start in mode explicit; may be repeated, * = all.",
        group="Models",
    )
    exit_on_error: bool = _setting(True, "End when a model fails to load at start.", group="Models")
    strict_readiness: bool = _setting(
        True, "Ready only while every model that should serve does.", group="Models"
    )
    model_load_thread_count: int = _setting(
        4, "Models loaded at the same time.", minimum=1, maximum=1024, group="Models"
    )
    backend_directory: tuple[Path, ...] = _setting(
        (), "Further directory of backend plug-ins; may be repeated.", group="Models"
    )
    backend_config: tuple[str, ...] = _setting(
        (),
        "BACKEND,KEY=VALUE: an option of a backend; may be repeated.",
        separator=";",
        group="Models",
    )

    model_memory_budget: str = _setting(
        "",
        "Memory that models may take, in bytes or with K, M, G: idle ones are unloaded for others,"
        " and loaded when they are asked for; empty = no bound, and all are loaded at start.",
        group="Models",
    )
    model_min_residency_secs: float = _setting(
        10.0,
        "Under a memory budget, how long a model is kept at least before a load on demand may"
        " unload it.",
        unit="s",
        minimum=0,
        maximum=86400,
        group="Models",
    )
    model_load_queue_size: int = _setting(
        256,
        "Requests that may wait for one model to be loaded on demand.",
        minimum=1,
        maximum=_MAX_INT32,
        group="Models",
    )
    instance_interval_secs: float = _setting(
        1.0,
        "How often it is decided how many instances models have that leave it open"
        " (instances_min, instances_max).",
        unit="s",
        minimum=0.02,
        maximum=3600,
        group="Models",
    )
    instance_target_utilisation: float = _setting(
        0.7,
        "Share of the instances' time that is to be busy; more instances are added above it.",
        minimum=0.01,
        maximum=1,
        group="Models",
    )
    instance_target_queue_age_ms: float = _setting(
        100.0,
        "Where requests wait longer, and instances are busy, instances are added.",
        unit="ms",
        minimum=1,
        maximum=_MAX_INT32,
        group="Models",
    )
    instance_up_window_secs: float = _setting(
        0.0,
        "How long more instances must be wanted.",
        unit="s",
        minimum=0,
        maximum=86400,
        group="Models",
    )
    instance_down_window_secs: float = _setting(
        60.0,
        "How long fewer instances must be enough.",
        unit="s",
        minimum=0,
        maximum=86400,
        group="Models",
    )

    host: str = _setting("127.0.0.1", "Address to listen on.", group="Addresses")
    grpc_address: str = _setting(
        "",
        "Address for gRPC; empty = host; unix:PATH = a Unix-domain socket, without a port.",
        group="Addresses",
    )
    http_address: str = _setting("", "Address for HTTP; empty = host.", group="Addresses")
    metrics_address: str = _setting("", "Address for metrics; empty = host.", group="Addresses")
    grpc_port: int = _port(8001, "Port for gRPC; 0 = any free one.")
    http_port: int = _port(8000, "Port for HTTP; 0 = any free one.")
    metrics_port: int = _port(8002, "Port for Prometheus metrics; 0 = any free one.")
    allow_grpc: bool = _setting(True, "Serve gRPC.", group="Addresses")
    allow_http: bool = _setting(True, "Serve HTTP.", group="Addresses")
    http_api: Literal["full", "health"] = _setting(
        "full",
        "What HTTP serves: the Open Inference protocol, or health only, as always under"
        " --grpc-use-ssl-mutual without --http-use-ssl-mutual.",
        group="HTTP",
    )
    allow_metrics: bool = _setting(True, "Serve Prometheus metrics.", group="Addresses")
    transport: Literal["auto", "native", "grpcio"] = _setting(
        "auto",
        "What carries gRPC: the native core or grpcio; auto: native where the core was built so.",
        group="Addresses",
    )
    grpc_io_threads: int = _setting(
        0,
        "Threads that carry gRPC (native transport only); 0 = from the number of cores.",
        minimum=0,
        maximum=256,
        group="Addresses",
    )

    jobs_root: tuple[str, ...] = _setting(
        (),
        "Directory or URI that batch jobs may read and write; may be repeated; none = no jobs.",
        separator=";",
        group="Batch jobs",
    )
    jobs_max_running: int = _setting(
        1, "Batch jobs that run at the same time.", minimum=1, maximum=1024, group="Batch jobs"
    )

    allow_client_shm: bool = _setting(
        False,
        "Clients on this machine may register shared memory: its objects are opened and written.",
        group="Shared memory",
    )

    max_message_bytes: int = _limit(
        256 * MEBIBYTE,
        "Greatest gRPC message, either way; also of one request's inputs in shared memory.",
        minimum=1024,
        unit="bytes",
    )
    max_connections: int = _limit(4096, "gRPC connections at a time; 0 = unlimited.")
    max_concurrent_streams: int = _limit(1024, "RPCs at a time on one connection.", minimum=1)
    max_header_bytes: int = _limit(
        16384, "Greatest headers of one call, all names and values.", minimum=1024, unit="bytes"
    )
    max_buffered_bytes: int = _limit(
        1024 * MEBIBYTE,
        "Bytes of requests being received or not yet answered, of all connections together; beyond"
        " them a call is refused (native transport only); 0 = unlimited.",
        maximum=1 << 50,
        unit="bytes",
    )
    max_inflight_requests: int = _limit(
        65536, "Inference requests accepted and not yet answered; 0 = unlimited."
    )
    max_inflight_per_stream: int = _limit(
        64, "Requests of one ModelStreamInfer under way before it stops reading.", minimum=1
    )
    grpc_compression: bool = _setting(
        True,
        "Take compressed requests; grpcio inflates one before it looks at --max-message-bytes.",
        group="Limits",
    )
    grpc_infer_response_compression_level: Literal["none", "low", "medium", "high"] = _setting(
        "none",
        "How much to compress responses of inference, for clients that take it.",
        group="Limits",
    )
    grpc_keepalive_time_ms: int = _limit(
        7_200_000,
        "Idle time after which a connection is pinged.",
        minimum=1000,
        unit="ms",
        flags=("--grpc-keepalive-time",),
    )
    grpc_keepalive_timeout_ms: int = _limit(
        20_000,
        "Time a ping may stay unanswered before the connection is closed.",
        minimum=100,
        unit="ms",
        flags=("--grpc-keepalive-timeout",),
    )
    grpc_min_ping_interval_ms: int = _limit(
        5_000,
        "Clients that ping more often than this are disconnected.",
        unit="ms",
        flags=("--grpc-http2-min-recv-ping-interval-without-data",),
    )
    grpc_max_connection_age_ms: int = _limit(
        0,
        "Age at which a connection is told to reconnect; 0 = never.",
        unit="ms",
        flags=("--grpc-max-connection-age",),
    )
    grpc_max_connection_age_grace_ms: int = _limit(
        0,
        "Time for the calls of a connection of that age to end before it is closed; 0 = no limit.",
        unit="ms",
        flags=("--grpc-max-connection-age-grace",),
    )
    grpc_max_connection_idle_ms: int = _limit(
        0,
        "Time without calls after which a connection is told to reconnect; 0 = never.",
        unit="ms",
        flags=("--grpc-max-connection-idle",),
    )

    background_batch_size: int = _limit(
        0,
        "Most rows of a batch of background requests: other requests may have to wait for one; "
        "0 = the model's max_batch_size.",
        unit="rows",
    )

    shutdown_grace_secs: float = _setting(
        5.0,
        "Time to go on serving after SIGTERM with readiness false; SIGINT has none.",
        unit="s",
        minimum=0,
        maximum=3600,
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

    server_name: str = _setting("penstock", "Name in ServerMetadata.", flags=("--id",))
    server_version: str = _setting(__version__, "Version in ServerMetadata.")
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

    @classmethod
    def from_text(cls, texts: Mapping[str, str | Iterable[str]]) -> ServerConfig:
        """Settings from strings, such as environment variables hold.

        Args:
            texts: by field name; a repeated field takes several, or one with separators in it.

        Raises:
            ConfigError: every string that is no value, and every value that is not allowed.
        """
        return read_texts(cls, texts)

    @property
    def memory_budget_bytes(self) -> int:
        """The memory budget; 0 = none."""
        return parse_size(self.model_memory_budget) or 0

    def backend_options(self) -> dict[str, dict[str, str]]:
        """The `backend_config` settings by backend."""
        options: dict[str, dict[str, str]] = {}
        for text in self.backend_config:
            backend, _, option = text.partition(",")
            key, _, value = option.partition("=")
            options.setdefault(backend, {})[key] = value
        return options

    def _rule_faults(self) -> Iterator[str]:
        if not (self.model_repository or self.environment or self.store):
            yield "--model-repository: at least one directory of models is needed"
        if self.model_memory_budget and not parse_size(self.model_memory_budget):
            yield (
                "--model-memory-budget: expected a number of bytes, or one with K, M, G or T, "
                f"got {self.model_memory_budget!r}"
            )
        if self.load_model and self.model_control_mode != "explicit":
            yield "--load-model: needs --model-control-mode explicit"
        if self.jobs_root and 0 < self.max_inflight_requests < _LEAST_WITH_JOBS:
            yield (
                f"--max-inflight-requests: expected at least {_LEAST_WITH_JOBS} with --jobs-root:"
                " a job, a request that its client lowered and any other have a place each"
            )
        if self.grpc_infer_response_compression_level != "none" and not self.grpc_compression:
            yield "--grpc-infer-response-compression-level: needs --grpc-compression"
        if not (self.allow_grpc or self.allow_http):
            yield "--allow-grpc: neither gRPC nor HTTP would be served"
        kind, colon, path = self.grpc_address.partition("unix:")
        has_host = path.startswith("//") and not path.startswith("///")
        if colon and not kind and (not path or has_host):
            yield f"--grpc-address: expected unix:PATH, got {self.grpc_address!r}"
        for text in self.backend_config:
            backend, _, option = text.partition(",")
            if not backend or not option.partition("=")[0] or "=" not in option:
                yield f"--backend-config: expected BACKEND,KEY=VALUE, got {text!r}"
        yield from self._port_faults()
        yield from self.access_faults()
        yield from self.http_faults()
        yield from self.metrics_faults()
        yield from self.operation_faults()
        yield from self.store_faults(self.model_repository, self.model_control_mode)

    def _port_faults(self) -> Iterator[str]:
        seen: dict[tuple[str, int], str] = {}
        for name in ("grpc", "http", "metrics"):
            if getattr(self, f"{name}_address").startswith("unix:"):
                continue
            port = getattr(self, f"{name}_port")
            if not getattr(self, f"allow_{name}") or port == 0:
                continue
            other = seen.setdefault((getattr(self, f"{name}_address") or self.host, port), name)
            if other != name:
                yield f"--{name}-port: {port} is also the port of {other}"


def setting_fields() -> tuple[SettingField, ...]:
    """The fields of ServerConfig in their order."""
    return fields_of(ServerConfig)
