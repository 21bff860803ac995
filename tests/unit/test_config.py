"""Settings: what is checked, and that every fault is told at once."""

from pathlib import Path
from typing import Any

import pytest

from penstock.config import ServerConfig, setting_fields
from penstock.errors import ConfigError

REPOSITORY = (Path("models"),)


def faults(**values: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(**{"model_repository": REPOSITORY, **values})  # type: ignore[arg-type]
    return caught.value.faults


def test_defaults_are_tritons_ports_on_loopback() -> None:
    config = ServerConfig(model_repository=REPOSITORY)
    assert (config.grpc_port, config.http_port, config.metrics_port) == (8001, 8000, 8002)
    assert config.host == "127.0.0.1"


def test_every_fault_is_reported_at_once() -> None:
    found = faults(grpc_port=70000, log_format="xml", max_connections=-1, exit_on_error="yes")
    assert found == (
        "--exit-on-error: expected bool, got 'yes'",
        "--grpc-port: expected at most 65535, got 70000",
        "--max-connections: expected at least 0, got -1",
        "--log-format: expected one of text, json, got 'xml'",
    )


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"model_repository": ()}, "--model-repository: at least one"),
        ({"model_repository": ("models",)}, "--model-repository: expected Path"),
        ({"load_model": ("m",)}, "--load-model: needs --model-control-mode explicit"),
        (
            {"load_model": ("m",), "model_control_mode": "poll"},
            "--load-model: needs --model-control-mode explicit",
        ),
        (
            {"grpc_infer_response_compression_level": "low", "grpc_compression": False},
            "--grpc-infer-response-compression-level: needs --grpc-compression",
        ),
        ({"repository_poll_secs": 0.0}, "--repository-poll-secs: expected at least 0.02 s"),
        ({"allow_grpc": False, "allow_http": False}, "neither gRPC nor HTTP"),
        ({"backend_config": ("onnxruntime",)}, "expected BACKEND,KEY=VALUE, got 'onnxruntime'"),
        ({"backend_config": (",a=b",)}, "expected BACKEND,KEY=VALUE"),
        ({"http_port": 8001}, "--http-port: 8001 is also the port of grpc"),
        ({"grpc_address": "unix:"}, "--grpc-address: expected unix:PATH, got 'unix:'"),
        ({"grpc_address": "unix://a"}, "--grpc-address: expected unix:PATH, got 'unix://a'"),
        ({"grpc_address": "unix://"}, "--grpc-address: expected unix:PATH, got 'unix://'"),
        ({"transport": "udp"}, "--transport: expected one of auto, native, grpcio, got 'udp'"),
        ({"max_header_bytes": 1}, "--max-header-bytes: expected at least 1024 bytes, got 1"),
        ({"grpc_io_threads": 999}, "--grpc-io-threads: expected at most 256, got 999"),
        ({"max_message_bytes": 1}, "expected at least 1024 bytes, got 1"),
        ({"exit_timeout_secs": float("nan")}, "--exit-timeout-secs: expected at least 0 s"),
        ({"grpc_port": True}, "--grpc-port: expected int, got True"),
    ],
)
def test_a_wrong_value_is_a_fault(values: dict[str, object], fault: str) -> None:
    assert [text for text in faults(**values) if fault in text]


def test_port_zero_and_ports_not_served_may_be_equal() -> None:
    allowed: tuple[dict[str, Any], ...] = (
        {"grpc_port": 0, "http_port": 0, "metrics_port": 0},
        {"http_port": 8001, "allow_http": False},
        {"http_port": 8001, "http_address": "127.0.0.2"},
    )
    for values in allowed:
        config = ServerConfig(model_repository=REPOSITORY, **values)
        assert config.http_port == values["http_port"]


def test_text_becomes_values() -> None:
    config = ServerConfig.from_text(
        {
            "model_repository": "a,b",
            "load_model": ["m", "n"],
            "model_control_mode": "explicit",
            "exit_on_error": "False",
            "grpc_port": "0",
            "shutdown_grace_secs": "0.5",
            "backend_config": "x,a=1;x,b=c=d,e",
        }
    )
    assert config.model_repository == (Path("a"), Path("b"))
    assert config.load_model == ("m", "n")
    assert (config.exit_on_error, config.grpc_port, config.shutdown_grace_secs) == (False, 0, 0.5)
    assert config.backend_options() == {"x": {"a": "1", "b": "c=d,e"}}


def test_faults_of_text_and_of_values_come_together() -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_text(
            {
                "model_repository": "a",
                "grpc_port": "x",
                "http_port": "-1",
                "exit_on_error": "maybe",
                "host": ["a", "b"],
                "nonsense": "1",
            }
        )
    assert sorted(caught.value.faults) == [
        "--exit-on-error: expected true or false, got 'maybe'",
        "--grpc-port: expected int, got 'x'",
        "--host: may be given once only",
        "--http-port: expected at least 0, got -1",
        "nonsense: no such setting",
    ]


def test_every_field_can_become_a_flag() -> None:
    fields = setting_fields()
    flags = [flag for field in fields for flag in (field.flag, *field.setting.flags)]
    assert len(flags) == len(set(flags))
    for field in fields:
        assert field.type in (bool, int, float, str, Path), field.name
        assert field.setting.help.endswith("."), field.name
        assert field.variable == f"PENSTOCK_{field.name.upper()}"


@pytest.mark.parametrize(
    "flag",
    [
        "--model-repository",
        "--model-control-mode",
        "--repository-poll-secs",
        "--grpc-infer-response-compression-level",
        "--load-model",
        "--exit-on-error",
        "--strict-readiness",
        "--model-load-thread-count",
        "--exit-timeout-secs",
        "--grpc-port",
        "--http-port",
        "--metrics-port",
        "--allow-metrics",
        "--backend-directory",
        "--backend-config",
        "--grpc-keepalive-time",
    ],
)
def test_tritons_flag_is_ours(flag: str) -> None:
    assert any(flag in (field.flag, *field.setting.flags) for field in setting_fields())


def test_jobs_need_places_in_flight_beside_those_of_others() -> None:
    repository = (Path("models"),)
    for most in (0, 3):
        ServerConfig(model_repository=repository, jobs_root=("out",), max_inflight_requests=most)
    with pytest.raises(ConfigError, match="--max-inflight-requests: expected at least 3"):
        ServerConfig(model_repository=repository, jobs_root=("out",), max_inflight_requests=2)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("1000", 1000), ("2k", 2048), ("512M", 512 << 20), ("8G", 8 << 30), ("1T", 1 << 40)],
)
def test_memory_budget_is_a_number_of_bytes(text: str, size: int) -> None:
    config = ServerConfig(model_repository=(Path("models"),), model_memory_budget=text)
    assert config.memory_budget_bytes == size


@pytest.mark.parametrize("text", ["0", "-1", "8GB", "G", "1.5G", "٣", "9" * 40])
def test_memory_budget_that_is_no_size_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError, match="--model-memory-budget: expected a number of bytes"):
        ServerConfig(model_repository=(Path("models"),), model_memory_budget=text)
