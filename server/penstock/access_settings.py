"""The settings of who may call: certificates, keys, tokens, restricted groups, rates.

`ServerConfig` is made of these and its own; flags and environment variables come out the same.
Texts about them never contain a value that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.setting import setting

__all__ = ["GROUPS", "AccessSettings"]

GROUPS = (
    "health",
    "metadata",
    "inference",
    "shared-memory",
    "model-config",
    "model-repository",
    "statistics",
    "trace",
    "logging",
    "jobs",
)
"""Triton's groups of RPCs, and batch jobs: who may call those reads and writes files."""

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
"""Signatures that a public key verifies. A secret that both sides have (HS256) is none of them."""

_RESTRICTED_PREFIX = "triton-grpc-protocol-"
_HEADER_WORD = re.compile(r"[0-9a-z_.-]+")
_MAX_RATE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who may call. `access_faults` says what does not fit together."""

    grpc_use_ssl: bool = setting(False, "Serve gRPC over TLS only.", group="Access")
    grpc_use_ssl_mutual: bool = setting(
        False, "Ask clients for a certificate of --grpc-root-cert.", group="Access"
    )
    grpc_server_cert: str = setting(
        "", "PEM file of the server's certificate chain; read anew when it changes.", group="Access"
    )
    grpc_server_key: str = setting(
        "", "PEM file of the certificate's private key; read anew when it changes.", group="Access"
    )
    grpc_root_cert: str = setting(
        "",
        "PEM file of who signs clients' certificates; read anew when it changes.",
        group="Access",
    )
    grpc_restricted_protocol: tuple[str, ...] = setting(
        (),
        "GROUP[,GROUP]:KEY=VALUE: calls of these groups need the header "
        "triton-grpc-protocol-KEY; may be repeated.",
        separator=";",
        group="Access",
    )
    api_keys_file: str = setting(
        "", "JSON file of API keys, by their SHA-256; read anew when it changes.", group="Access"
    )
    unauthenticated_group: tuple[str, ...] = setting(
        (), "Group of calls that need no key or token; may be repeated.", group="Access"
    )

    jwks: str = setting(
        "",
        "File or http(s) URL of the JSON Web Key Set that verifies bearer tokens (JWT); read anew "
        "when it changes, on an unknown key, and every --jwks-refresh-secs.",
        group="Access",
    )
    jwt_issuer: str = setting("", "Who must have issued a token (iss).", group="Access")
    jwt_audience: tuple[str, ...] = setting(
        (), "For whom a token must be (aud): one of these; may be repeated.", group="Access"
    )
    jwt_algorithm: tuple[str, ...] = setting(
        ("RS256", "ES256", "EdDSA"),
        f"Signatures that count, of {', '.join(ALGORITHMS)}; may be repeated.",
        group="Access",
    )
    jwt_leeway_secs: float = setting(
        30.0,
        "By how much the clock of whoever issues tokens may differ.",
        unit="s",
        minimum=0,
        maximum=3600,
        group="Access",
    )
    jwt_group: tuple[str, ...] = setting(
        ("health", "metadata", "inference", "model-config", "statistics"),
        "Group of calls that a token allows; may be repeated.",
        group="Access",
    )
    jwks_refresh_secs: float = setting(
        300.0,
        "How often the URL of the key set is asked.",
        unit="s",
        minimum=0.01,
        maximum=86400,
        group="Access",
    )

    connection_requests_per_second: float = setting(
        0.0,
        "Calls of one connection, but for health; 0 = unlimited.",
        minimum=0,
        maximum=_MAX_RATE,
        group="Access",
    )
    connection_request_burst: int = setting(
        100, "Calls of one connection at once.", minimum=1, maximum=_MAX_RATE, group="Access"
    )
    key_requests_per_second: float = setting(
        0.0,
        "Calls of one key, or of one subject's tokens, where its own says nothing; 0 = unlimited.",
        minimum=0,
        maximum=_MAX_RATE,
        group="Access",
    )
    key_request_burst: int = setting(
        100,
        "Calls of one key, or of one subject's tokens, at once.",
        minimum=1,
        maximum=_MAX_RATE,
        group="Access",
    )
    access_reload_secs: float = setting(
        5.0,
        "How often the files of keys are looked at for a change.",
        unit="s",
        minimum=0.01,
        maximum=3600,
        group="Access",
    )

    @property
    def needs_identity(self) -> bool:
        """Callers must show a key or a token."""
        return bool(self.api_keys_file or self.jwks)

    def restricted_groups(self) -> dict[str, tuple[str, str]]:
        """Header and value by restricted group."""
        rules = {}
        for text in self.grpc_restricted_protocol:
            groups, _, rule = text.partition(":")
            key, _, value = rule.partition("=")
            for group in groups.split(","):
                rules[group] = (_RESTRICTED_PREFIX + key, value)
        return rules

    def access_faults(self) -> Iterator[str]:
        """What does not fit together."""
        yield from self._tls_faults()
        yield from self._token_faults()
        yield from _restricted_faults(self.grpc_restricted_protocol)
        for group in self.unauthenticated_group:
            if group not in GROUPS:
                yield f"--unauthenticated-group: {_expected_group(group)}"
        if self.unauthenticated_group and not self.needs_identity:
            yield "--unauthenticated-group: there is nothing to except from without keys or tokens"

    def _token_faults(self) -> Iterator[str]:
        if "://" in self.jwks and not self.jwks.startswith(("http://", "https://")):
            yield "--jwks: expected a file or an http:// or https:// URL"
        if self.jwks and not (self.jwt_issuer or self.jwt_audience):
            yield (
                "--jwks: needs --jwt-issuer or --jwt-audience, or tokens that were made for other "
                "servers would be good here"
            )
        for name in ("jwt_issuer", "jwt_audience"):
            if getattr(self, name) and not self.jwks:
                yield f"--{name.replace('_', '-')}: needs --jwks"
        for algorithm in self.jwt_algorithm:
            if algorithm not in ALGORITHMS:
                yield f"--jwt-algorithm: expected of {', '.join(ALGORITHMS)}, got '{algorithm}'"
        if self.jwks and not self.jwt_algorithm:
            yield "--jwt-algorithm: without any, no token would be good"
        for group in self.jwt_group:
            if group not in GROUPS:
                yield f"--jwt-group: {_expected_group(group)}"

    def _tls_faults(self) -> Iterator[str]:
        files = {
            "--grpc-server-cert": (self.grpc_server_cert, self.grpc_use_ssl),
            "--grpc-server-key": (self.grpc_server_key, self.grpc_use_ssl),
            "--grpc-root-cert": (self.grpc_root_cert, self.grpc_use_ssl_mutual),
        }
        for flag, (path, is_needed) in files.items():
            if is_needed and not path:
                yield f"{flag}: needed to serve gRPC over TLS"
            if path and not self.grpc_use_ssl:
                yield f"{flag}: needs --grpc-use-ssl=true"
        if self.grpc_use_ssl_mutual and not self.grpc_use_ssl:
            yield "--grpc-use-ssl-mutual: needs --grpc-use-ssl=true"
        if self.grpc_root_cert and self.grpc_use_ssl and not self.grpc_use_ssl_mutual:
            yield "--grpc-root-cert: needs --grpc-use-ssl-mutual=true"


def _restricted_faults(texts: tuple[str, ...]) -> Iterator[str]:
    seen: set[str] = set()
    for text in texts:
        groups, colon, rule = text.partition(":")
        key, equals, value = rule.partition("=")
        if not colon or not equals or not value or not _HEADER_WORD.fullmatch(key):
            yield (
                "--grpc-restricted-protocol: expected GROUP[,GROUP]:KEY=VALUE with a KEY of "
                "lower-case letters, digits, '-', '_' or '.', got something else"
            )
            continue
        for group in groups.split(","):
            if group not in GROUPS:
                yield f"--grpc-restricted-protocol: {_expected_group(group)}"
            if group in seen:
                yield f"--grpc-restricted-protocol: '{group}' is restricted twice"
            seen.add(group)


def _expected_group(got: str) -> str:
    return f"expected groups of {', '.join(GROUPS)}, got '{got}'"
