"""Who may call over HTTP: what is asked on gRPC is asked here, by the same admission."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.access_files import key_entry, write_keys, write_text
from tests.support.certificates import Authority
from tests.support.fixture_models import write_simple
from tests.support.http import HttpReply, ask, post
from tests.support.http_requests import outputs, simple_json
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, key_set
from tests.support.run_server import run_server, server_config

from penstock.access_settings import GROUPS
from penstock_gateway.openapi import document

pytestmark = pytest.mark.any_transport

OPEN = {"/v2/health/live", "/v2/health/ready", "/ping"}
"""Probes: they say no more than a balancer has to know."""
RULE = f"{','.join(each for each in GROUPS)}:admin=s3cret"


def routes() -> Iterator[tuple[str, str]]:
    """Verb and path of everything that the OpenAPI document has."""
    for path, item in document()["paths"].items():
        filled = path.replace("{model}", "simple").replace("{version}", "1")
        for verb in ("get", "post"):
            if verb in item:
                yield verb.upper(), filled.replace("{region}", "r")


async def call(port: int, verb: str, path: str, **headers: str) -> HttpReply:
    body = b'{"byte_size":1}' if path.endswith("/register") else b"{}" if verb == "POST" else b""
    return await ask(port, path, method=verb, body=body, headers=headers)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    return tmp_path / "models"


async def test_every_route_wants_a_key(repository: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", key_entry("all", "good"))
    config = server_config(repository, api_keys_file=str(keys), http_default_model="simple")
    async with run_server(config) as server:
        tried = 0
        for verb, path in routes():
            for headers in ({}, {"x-api-key": "bad"}, {"authorization": "Bearer bad"}):
                reply = await call(server.http_port, verb, path, **headers)
                assert reply.status == (200 if path in OPEN else 401), (verb, path, reply)
                tried += 1
            if path not in OPEN:
                assert reply.headers["www-authenticate"] == "Bearer"
                assert "bad" not in reply.json["error"]
            good = await call(server.http_port, verb, path, **{"x-api-key": "good"})
            assert good.status not in (401, 403), (verb, path)
        assert tried > 90
        bearer = {"authorization": "Bearer good"}
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json(), bearer)
        assert outputs(reply)["OUTPUT0"] == list(range(1, 17))


async def test_every_route_of_a_restricted_group_wants_its_header(repository: Path) -> None:
    config = server_config(
        repository, grpc_restricted_protocol=(RULE,), http_default_model="simple"
    )
    text = "This API is restricted, expecting header 'triton-grpc-protocol-admin'"
    async with run_server(config) as server:
        for verb, path in routes():
            reply = await call(server.http_port, verb, path)
            if path not in OPEN:
                assert (reply.status, reply.json) == (403, {"error": text}), (verb, path)
        header = {"Triton-Grpc-Protocol-Admin": "s3cret"}
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json(), header)
        assert reply.status == 200
        wrong = {"triton-grpc-protocol-admin": "s3cret2"}
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json(), wrong)
        assert reply.status == 403


async def test_key_opens_its_groups_and_no_others(repository: Path, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.json", key_entry("one", "k", "inference"))
    async with run_server(server_config(repository, api_keys_file=str(keys))) as server:
        key = {"x-api-key": "k"}
        infer = "/v2/models/simple/infer"
        assert (await post(server.http_port, infer, simple_json(), key)).status == 200
        assert (await ask(server.http_port, "/v2/models/simple", headers=key)).status == 403
        # Generate asks for the model's metadata in the caller's name.
        reply = await post(server.http_port, "/v2/models/simple/generate", {}, key)
        assert reply.status == 403


async def test_rate_of_a_key_is_429_with_a_time(repository: Path, tmp_path: Path) -> None:
    entry = key_entry("slow", "k", requests_per_second=0.01, burst=2)
    keys = write_keys(tmp_path / "keys.json", entry)
    async with run_server(server_config(repository, api_keys_file=str(keys))) as server:
        path, key = "/v2/models/simple/infer", {"x-api-key": "k"}
        found = [await post(server.http_port, path, simple_json(), key) for _ in range(3)]
        assert [each.status for each in found] == [200, 200, 429]
        assert int(found[2].headers["retry-after"]) >= 50


async def test_rate_of_a_connection_is_of_the_http_client(repository: Path) -> None:
    config = server_config(
        repository, connection_requests_per_second=0.01, connection_request_burst=2
    )
    async with run_server(config) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
        head = "POST /v2/models/simple/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n"
        writer.write(
            f"{head}\r\n{{}}".encode() * 2 + f"{head}Connection: close\r\n\r\n{{}}".encode()
        )
        found = re.findall(rb"HTTP/1.1 (\d+) ", await reader.read())
        writer.close()
        assert found == [b"400", b"400", b"429"]  # who is refused has paid, too


async def test_credentials_that_are_ambiguous_reach_nobody(
    repository: Path, tmp_path: Path
) -> None:
    keys = write_keys(tmp_path / "keys.json", key_entry("all", "good"))
    async with run_server(server_config(repository, api_keys_file=str(keys))) as server:
        headers = {"X-Api-Key": "bad", "x-api-key": "good"}
        reply = await post(server.http_port, "/v2/models/simple/infer", simple_json(), headers)
        assert reply.status == 400


async def test_token_opens_its_groups_on_every_route_of_them(
    repository: Path, tmp_path: Path
) -> None:
    issuer = Issuer()
    keys = write_text(tmp_path / "keys.json", key_set(issuer))
    config = server_config(repository, jwks=str(keys), jwt_issuer=ISSUER, jwt_audience=(AUDIENCE,))
    async with run_server(config) as server:
        port, infer = server.http_port, "/v2/models/simple/infer"
        good = {"authorization": f"Bearer {issuer.token()}"}
        assert (await post(port, infer, simple_json(), good)).status == 200
        assert (await post(port, "/v2/models/simple/generate", {}, good)).status == 400
        refused = await post(port, "/v2/repository/index", None, good)
        assert refused.status == 403 and "model-repository" in refused.json["error"]
        for token in (issuer.token(aud="another"), Issuer().token(), "x.y.z"):
            bad = {"authorization": f"Bearer {token}"}
            for path in (infer, "/v2/models/simple/generate_stream"):
                reply = await post(port, path, simple_json(), bad)
                assert reply.status == 401 and token not in reply.json["error"]


async def test_mutual_tls_leaves_http_its_health_only(repository: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    config = server_config(
        repository,
        grpc_use_ssl=True,
        grpc_use_ssl_mutual=True,
        grpc_server_cert=str(pair.certificate),
        grpc_server_key=str(pair.key),
        grpc_root_cert=str(authority.certificate),
    )
    async with run_server(config) as server:
        assert (await ask(server.http_port, "/v2/health/ready")).status == 200
        for verb, path in routes():
            if path not in OPEN:
                assert (await call(server.http_port, verb, path)).status == 404
