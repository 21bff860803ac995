"""What of a request gets through: headers, bodies, encodings, origins; against a fake upstream."""

import gzip
import re
import zlib
from collections.abc import MutableMapping
from typing import Any

import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, echo
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import CloudRoutes, Options, header_fault
from penstock_gateway.upstream import UpstreamError

Pairs = list[tuple[str, str]]


async def post(
    upstream: FakeUpstream,
    path: str,
    body: object = b"",
    headers: Pairs | None = None,
    **options: Any,
) -> AsgiReply:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    gateway = Gateway(upstream, Options(**options))
    return await ask_asgi(gateway, "POST", path, data, headers or [])


CREDENTIALS = [
    ("authorization", "Bearer t"),
    ("x-api-key", "k"),
    ("triton-grpc-protocol-admin", "s"),
    ("traceparent", "00-1"),
]


async def test_only_listed_headers_become_metadata() -> None:
    upstream = FakeUpstream()
    smuggled = [
        *("grpc-timeout", "grpc-encoding", "te", "host", "content-type", "user-agent"),
        *("x-forwarded-for", "triton_grpc_error", "triton-grpc-protocol-x-bin", "cookie"),
    ]
    headers = [*CREDENTIALS, ("X-Mine", " yes "), *((name, "1") for name in smuggled)]
    path = "/v2/models/m/infer"
    await post(upstream, path, {"inputs": []}, headers, forward_headers=("x-mine",))
    call = upstream.calls[-1][0]
    assert set(call.metadata) == {*CREDENTIALS, ("x-mine", "yes")}
    assert call.peer == "ipv4:192.0.2.7:4711"


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
        [("x-api-key", "k\u00e9y")],
        [("x-api-key", "a\tb")],
        [("triton-grpc-protocol-a", "1"), ("triton-grpc-protocol-a", "2")],
    ],
)
async def test_credentials_that_could_be_read_two_ways_are_refused(headers: Pairs) -> None:
    upstream = FakeUpstream()
    reply = await post(upstream, "/v2/models/m/infer", {"inputs": []}, headers)
    assert reply.status == 400
    assert headers[0][0] in reply.json["error"] and headers[0][1] not in reply.json["error"]
    assert upstream.calls == []


async def test_context_of_tracing_is_no_reason_to_refuse() -> None:
    upstream = FakeUpstream()
    headers = [
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("x-request-id", "caf\u00e9"),
        ("traceparent", "00-1"),
        ("traceparent", "00-2"),
        ("triton-grpc-protocol-a!b", "gRPC takes no such name"),
    ]
    reply = await post(upstream, "/v2/models/m/infer", {"inputs": []}, headers)
    assert reply.status == 200
    found = upstream.calls[-1][0].metadata
    assert found == (("tracestate", "a=1,b=2"), ("traceparent", "00-1"))


@pytest.mark.parametrize("name", ["grpc-timeout", "x-bin", "host", "X", "a b", "", "content-type"])
def test_header_that_means_something_is_never_forwarded(name: str) -> None:
    assert header_fault(name) is not None
    assert header_fault("x-tenant") is None


def packed(data: bytes) -> bytes:
    """Gzip without the time, or every process would have tests of other names."""
    return gzip.compress(data, mtime=0)


DOCUMENT = orjson.dumps({"inputs": [], "id": "x" * 3000})


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", packed(DOCUMENT)),
        ("deflate", zlib.compress(DOCUMENT)),
        ("GZIP", packed(DOCUMENT)),
        ("identity", DOCUMENT),
    ],
)
async def test_compressed_request_is_read(encoding: str, data: bytes) -> None:
    upstream = FakeUpstream()
    path = "/v2/models/m/infer"
    assert (await post(upstream, path, data, [("content-encoding", encoding)])).status == 200
    assert upstream.last.id == "x" * 3000


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        ("br", b"x", 501),
        ("gzip, gzip", b"x", 501),
        ("gzip", b"not", 400),
        ("gzip", packed(DOCUMENT)[:-9], 400),
        ("gzip", packed(DOCUMENT) + b"more", 400),
        ("deflate", packed(DOCUMENT), 400),
        ("gzip", packed(bytes(2 << 20)), 413),
        ("deflate", zlib.compress(bytes(64 << 20)), 413),
    ],
)
async def test_compressed_request_that_is_broken_or_a_bomb_is_refused(
    encoding: str, data: bytes, status: int
) -> None:
    upstream = FakeUpstream()
    headers = [("content-encoding", encoding)]
    reply = await post(upstream, "/v2/models/m/infer", data, headers, max_body_bytes=1 << 20)
    assert reply.status == status
    assert upstream.calls == []
    if status == 501:
        assert reply.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("accepted", "used"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, deflate;q=0.5, gzip;q=0.8", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=x", ""),
        ("br", ""),
    ],
)
async def test_response_is_compressed_where_the_client_takes_it(accepted: str, used: str) -> None:
    upstream = FakeUpstream()
    body = {"inputs": [], "id": "y" * 3000}
    reply = await post(upstream, "/v2/models/m/infer", body, [("accept-encoding", accepted)])
    assert reply.headers.get("content-encoding", "") == used
    data = reply.body if not used else zlib.decompress(reply.body, 31 if used == "gzip" else 15)
    assert orjson.loads(data)["id"] == "y" * 3000
    assert int(reply.headers["content-length"]) == len(reply.body)


async def test_body_of_who_may_not_call_is_never_read() -> None:
    upstream = FakeUpstream(refusal=UpstreamError(16, "who?"))
    gateway = Gateway(upstream, Options(clouds=CloudRoutes(default_model="m")))
    paths = [route.path for route in gateway.routes if "POST" in (route.methods or ())]

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    for path in paths:
        sent: list[Any] = []

        async def send(message: MutableMapping[str, Any], sent: list[Any] = sent) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"type": "http", "method": "POST"}
        scope["path"] = re.sub(r"{\w+}", "x", path)
        scope |= {"headers": [], "query_string": b"", "root_path": ""}
        await gateway(scope, receive, send)
        assert sent[0]["status"] == 401, path
    assert len(upstream.authorized) == len(paths) > 20
    assert upstream.calls == []


async def test_body_over_the_limit_is_413_before_it_is_read() -> None:
    upstream = FakeUpstream()
    announced = [("content-length", "2000")]
    path = "/v2/models/m/infer"
    assert (await post(upstream, path, b"x", announced, max_body_bytes=1000)).status == 413
    assert (await post(upstream, path, b"x" * 2000, max_body_bytes=1000)).status == 413
    assert upstream.calls == []


async def test_bodies_of_all_requests_share_one_budget_and_give_it_back() -> None:
    gateway = Gateway(FakeUpstream(), Options(max_buffered_bytes=1000))
    path = "/v2/models/m/infer"
    for _ in range(3):
        assert (await ask_asgi(gateway, "POST", path, b'{"inputs":[]}' + b" " * 900)).status == 200
        over = await ask_asgi(gateway, "POST", path, b" " * 1001)
        assert (over.status, over.headers["retry-after"]) == (503, "1")


async def test_client_that_leaves_halfway_is_not_answered() -> None:
    reply = AsgiReply()
    gateway = Gateway(upstream := FakeUpstream(), Options())

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        reply.status = message.get("status", reply.status)

    scope = {"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": []}
    await gateway({**scope, "query_string": b"", "root_path": ""}, receive, send)
    assert (reply.status, upstream.calls) == (0, [])


async def test_cors_is_off_unless_an_origin_is_named() -> None:
    upstream = FakeUpstream()
    asked = [("origin", "https://a.example"), ("access-control-request-method", "POST")]
    for origins, status in [
        ((), 405),
        (("https://a.example",), 200),
        (("https://b.example",), 400),
    ]:
        gateway = Gateway(upstream, Options(cors_origins=origins))
        reply = await ask_asgi(gateway, "OPTIONS", "/v2/models/m/infer", b"", asked)
        assert reply.status == status
        allowed = reply.headers.get("access-control-allow-origin")
        assert allowed == ("https://a.example" if status == 200 else None)


@pytest.mark.parametrize(
    ("origin", "origins", "status"),
    [
        ("https://evil.example", (), 403),
        ("null", (), 403),
        ("http://localhost:8000", (), 200),
        ("https://a.example", ("https://a.example",), 200),
        ("https://evil.example", ("https://a.example",), 403),
        ("https://evil.example", ("*",), 200),
    ],
)
async def test_page_of_another_site_cannot_make_a_browser_call(
    origin: str, origins: tuple[str, ...], status: int
) -> None:
    upstream = FakeUpstream(
        {"RepositoryModelUnload": wire.RepositoryModelUnloadResponse(), "ModelInfer": echo}
    )
    headers = [("origin", origin), ("host", "localhost:8000")]
    for path in ("/v2/repository/models/m/unload", "/v2/models/m/infer"):
        reply = await post(upstream, path, {}, headers, cors_origins=origins)
        assert reply.status == status
    assert len(upstream.calls) == (2 if status == 200 else 0)
