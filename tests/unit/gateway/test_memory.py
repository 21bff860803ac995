"""What a request holds: JSON within its limit, and nothing but the message while its call runs."""

import asyncio
import threading
import weakref
import zlib
from typing import Any

import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, echo, metadata, response

from penstock_gateway import body, jsons
from penstock_gateway.app import Gateway
from penstock_gateway.options import CloudRoutes, Options
from penstock_gateway.upstream import Call

INFER = "/v2/models/m/infer"
HEADER = "inference-header-content-length"
TENSOR = {"name": "X", "datatype": "INT32", "shape": [3], "data": [1, 2, 3]}
REQUESTS: dict[str, dict[str, Any]] = {
    INFER: {"inputs": [TENSOR]},
    "/v2/models/m/generate": {"X": [1, 2, 3]},
    "/invocations": {"instances": [[1], [2], [3]]},
}


class _Document(dict[str, Any]):
    """A parsed document whose end can be seen."""


class _Watchful(FakeUpstream):
    """Remembers the RPCs that were called while a document was held."""

    def __init__(self) -> None:
        model = metadata(X=("INT32", [-1]))
        streamed = [response(Y=1)]
        super().__init__({"ModelInfer": echo, "ModelMetadata": model, "ModelStreamInfer": streamed})
        self.documents: list[weakref.ref[_Document]] = []
        self.held: list[str] = []

    def look(self, rpc: str) -> None:
        if any(document() is not None for document in self.documents):
            self.held.append(rpc)

    async def unary(self, call: Call, request: bytes) -> bytes:
        self.look(call.rpc)
        return await super().unary(call, request)

    def stream(self, call: Call, request: bytes) -> Any:
        self.look(call.rpc)
        return super().stream(call, request)


async def ask(upstream: FakeUpstream, path: str, body: bytes, **headers: str) -> AsgiReply:
    options = Options(max_json_bytes=1000, clouds=CloudRoutes(default_model="m"))
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await ask_asgi(Gateway(upstream, options), "POST", path, body, pairs)


@pytest.mark.parametrize("path", [*REQUESTS, "/v2/repository/index", "/v2/trace/setting"])
async def test_json_over_its_limit_is_413(path: str) -> None:
    upstream = FakeUpstream()
    reply = await ask(upstream, path, b'{"parameters":{}}' + b" " * 1000)
    assert reply.status == 413
    assert upstream.calls == []


async def test_bytes_behind_json_count_for_the_body_alone() -> None:
    tensor: dict[str, Any] = {"name": "X", "datatype": "INT32", "shape": [1000]}
    tensor["parameters"] = {"binary_data_size": 4000}
    head = orjson.dumps({"inputs": [tensor]})
    upstream = FakeUpstream()
    sized = {HEADER: str(len(head))}
    assert (await ask(upstream, INFER, head + bytes(4000), **sized)).status == 200
    reply = await ask(upstream, INFER, head + b" " * 1000, **{HEADER: str(len(head) + 1000)})
    assert reply.status == 413
    assert "larger than 1000 bytes; tensors may follow it as bytes" in reply.json["error"]
    content_type = f"application/vnd.sagemaker-triton.binary+json;json-header-size={len(head)}"
    packed = await ask(upstream, "/invocations", head + bytes(4000), content_type=content_type)
    assert packed.status == 200


@pytest.mark.parametrize("path", REQUESTS)
async def test_document_is_parsed_once_and_let_go_before_the_calls(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = _Watchful()
    loads = jsons.loads

    def watched(data: Any) -> Any:
        document = _Document(loads(data))
        upstream.documents.append(weakref.ref(document))
        return document

    monkeypatch.setattr(jsons, "loads", watched)
    assert (await ask(upstream, path, orjson.dumps(REQUESTS[path]))).status == 200
    assert (len(upstream.documents), upstream.held) == (1, [])


async def test_few_bodies_are_inflated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, gate, lock = threading.Semaphore(0), threading.Event(), threading.Lock()
    running: list[int] = [0]
    inflate = body._inflate

    def watched(data: bytes, encoding: str, limit_bytes: int) -> bytes:
        with lock:
            running.append(running[-1] + 1)
        begun.release()
        assert gate.wait(30)
        with lock:
            running.append(running[-1] - 1)
        return inflate(data, encoding, limit_bytes)

    monkeypatch.setattr(body, "_inflate", watched)
    budget = body.Budget(1 << 20)
    data = zlib.compress(bytes(range(256)) * 40, 0)
    tasks = [
        asyncio.create_task(body.inflate(data, "deflate", 1 << 20, budget.lease()))
        for _ in range(6)
    ]
    for _ in range(2):
        await asyncio.to_thread(begun.acquire, timeout=30)
    assert budget.inflating.locked()
    gate.set()
    found = await asyncio.gather(*tasks)
    assert {len(each) for each in found} == {256 * 40}
    assert max(running) == 2
