"""Clients that ask again as soon as they are answered, and note every answer that is not right."""

import asyncio
import json
from typing import Any

from tests.support.http import post
from tests.support.http_requests import outputs, simple_json
from tests.support.raw_grpc import raw_client
from tests.support.requests import simple_request, sums
from tritonclient.grpc import service_pb2 as wire

EXPECTED = tuple(range(1, 17))
STAYING = 4
_SERVICE = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
_ROUND = {
    "grpc__service_config": json.dumps(_SERVICE),
    "grpc__initial_reconnect_backoff_ms": 50,
    "grpc__min_reconnect_backoff_ms": 50,
    "grpc__max_reconnect_backoff_ms": 100,
}
_REQUEST = simple_request().SerializeToString()


class Load:
    """gRPC on connections that stay and on new ones, HTTP on new ones, and the model `simple`."""

    def __init__(self, grpc: str, http_port: int = 0, *, balances: bool = False) -> None:
        """`grpc`: host:port or any name that gRPC resolves.

        `balances`: only clients that stay, which go round and ask every server by grpc.health.v1
        whether it is ready, as balancers do.
        """
        self._grpc = grpc
        self._options: dict[str, Any] = _ROUND if balances else {}
        self._http_port = http_port
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answered = {"stay": 0} if balances else {"stay": 0, "come": 0, "http": 0}
        self.wrong: list[str] = []

    async def __aenter__(self) -> "Load":
        kinds = {"stay": self._stay, "come": self._keep_coming, "http": self._keep_asking}
        for kind in self.answered:
            self._tasks += [asyncio.create_task(kinds[kind]()) for _ in range(STAYING)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Returns when every client has its last answer."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def go_on(self, count: int = 20) -> None:
        """Returns when every kind of client was answered `count` times more."""
        before = dict(self.answered)
        while not self.wrong and any(self.answered[k] < before[k] + count for k in before):
            await asyncio.wait(self._tasks, timeout=0.01)

    async def _stay(self) -> None:
        async with raw_client(self._grpc, **self._options) as client:
            await self._repeat("stay", lambda: client.unary("ModelInfer", _REQUEST))

    async def _keep_coming(self) -> None:
        await self._repeat("come", self._come)

    async def _keep_asking(self) -> None:
        await self._repeat("http", self._ask)

    async def _come(self) -> bytes:
        async with raw_client(self._grpc) as client:
            answer: bytes = await client.unary("ModelInfer", _REQUEST)
        return answer

    async def _ask(self) -> bytes:
        reply = await post(self._http_port, "/v2/models/simple/infer", simple_json())
        assert tuple(outputs(reply)["OUTPUT0"]) == EXPECTED
        return b""

    async def _repeat(self, kind: str, call: object) -> None:
        assert callable(call)
        while not self._is_over:
            try:
                answer = await call()
                if answer and sums(wire.ModelInferResponse.FromString(answer)) != EXPECTED:
                    self.wrong.append(f"{kind}: {answer!r}")
            except Exception as error:
                self.wrong.append(f"{kind}: {error!r}")
            self.answered[kind] += 1
