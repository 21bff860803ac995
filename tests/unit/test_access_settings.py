"""The settings of who may call: what fits together; no fault quotes a secret."""

from pathlib import Path

import pytest

from penstock import core
from penstock.access_settings import GROUPS
from penstock.config import ServerConfig
from penstock.errors import ConfigError

TLS = {"grpc_use_ssl": True, "grpc_server_cert": "c", "grpc_server_key": "k"}


def faults(**values: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(model_repository=(Path("m"),), **values)  # type: ignore[arg-type]
    return caught.value.faults


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"grpc_use_ssl": True}, "--grpc-server-cert: needed to serve gRPC over TLS"),
        ({"grpc_server_cert": "c"}, "--grpc-server-cert: needs --grpc-use-ssl=true"),
        ({"grpc_use_ssl_mutual": True}, "--grpc-use-ssl-mutual: needs --grpc-use-ssl=true"),
        ({**TLS, "grpc_use_ssl_mutual": True}, "--grpc-root-cert: needed to serve"),
        ({**TLS, "grpc_root_cert": "r"}, "--grpc-root-cert: needs --grpc-use-ssl-mutual=true"),
        ({"grpc_restricted_protocol": ("admin:k=v",)}, "expected groups of health, metadata"),
        ({"grpc_restricted_protocol": ("trace:k=s3cret", "trace:k=v")}, "'trace' is restricted tw"),
        ({"grpc_restricted_protocol": ("trace:KEY=s3cret",)}, "with a KEY of lower-case letters"),
        ({"grpc_restricted_protocol": ("trace=s3cret",)}, "expected GROUP[,GROUP]:KEY=VALUE"),
        ({"grpc_restricted_protocol": ("trace:k=",)}, "expected GROUP[,GROUP]:KEY=VALUE"),
        ({"unauthenticated_group": ("health",)}, "there is nothing to except from"),
        ({"api_keys_file": "k", "unauthenticated_group": ("x",)}, "expected groups of health"),
        ({"jwks": "ftp://keys", "jwt_issuer": "i"}, "--jwks: expected a file or an http://"),
        ({"jwks": "keys.json"}, "--jwks: needs --jwt-issuer or --jwt-audience"),
        ({"jwt_issuer": "i"}, "--jwt-issuer: needs --jwks"),
        ({"jwks": "k", "jwt_issuer": "i", "jwt_algorithm": ("HS256",)}, "got 'HS256'"),
        ({"jwks": "k", "jwt_issuer": "i", "jwt_algorithm": ("none",)}, "got 'none'"),
        ({"jwks": "k", "jwt_issuer": "i", "jwt_algorithm": ()}, "no token would be good"),
        ({"jwks": "k", "jwt_issuer": "i", "jwt_group": ("x",)}, "--jwt-group: expected groups"),
        ({"connection_requests_per_second": float("nan")}, "expected at least 0"),
    ],
)
def test_what_does_not_fit_is_a_fault(values: dict[str, object], fault: str) -> None:
    found = faults(**values)
    assert [text for text in found if fault in text], found
    assert "s3cret" not in " ".join(found)


def test_restricted_groups_by_header() -> None:
    config = ServerConfig.from_text(
        {
            "model_repository": "m",
            "grpc_restricted_protocol": "trace,logging:admin=a=b,c;inference:user=x",
        }
    )
    assert config.restricted_groups() == {
        "trace": ("triton-grpc-protocol-admin", "a=b,c"),
        "logging": ("triton-grpc-protocol-admin", "a=b,c"),
        "inference": ("triton-grpc-protocol-user", "x"),
    }


def test_groups_are_those_of_the_core() -> None:
    core.AccessPolicy(open_groups=GROUPS)
    with pytest.raises(ValueError, match="unknown group"):
        core.AccessPolicy(open_groups=("control",))
