"""Too much, too late, gone away: queues, limits, deadlines and cancellation on the wire.

`blocked` runs one row at a time and only once a file exists: what is queued and what runs is known.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.fixture_models import write_blocked
from tests.support.http import ask
from tests.support.raw_grpc import RawClient
from tests.support.requests import identity_request
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

from penstock.errors import DeadlineExceededError

QUEUE = """dynamic_batching {{ default_queue_policy {{ {policy} }} }}"""


@dataclass
class Stage:
    """A server with the model `blocked`, and the file that lets it run."""

    server: RunningServer
    client: RawClient
    gate: Path

    def send(self, value: float = 1.0, *, parameters: Any = None, **options: Any) -> Any:
        request = identity_request([value], model="blocked", parameters=parameters or {})
        return self.client.unary("ModelInfer", request.SerializeToString(), **options)

    async def stats(self) -> dict[str, Any]:
        (version,) = self.server.app.models.statistics("blocked")
        return dict(version.counters)

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The counters, once the condition holds; every look is a round trip."""
        while not condition(stats := await self.stats()):
            await self.client.unary("ServerLive")
        return stats

    async def occupy(self, queued: int = 0) -> list[Any]:
        """One request that runs, and `queued` behind it."""
        calls = [self.send()]
        await self.until(lambda stats: stats["running"] == 1)
        for _ in range(queued):
            calls.append(self.send())
        await self.until(lambda stats: stats["pending"] == queued)
        return calls

    async def open_gate(self, calls: list[Any]) -> None:
        """Lets everything run; what was accepted is answered."""
        self.gate.touch()
        for reply in await asyncio.gather(*calls):
            assert wire.ModelInferResponse.FromString(reply).model_name == "blocked"


@asynccontextmanager
async def stage(tmp_path: Path, *, policy: str = "", **settings: Any) -> AsyncIterator[Stage]:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate, config=QUEUE.format(policy=policy) if policy else "")
    async with run_server(server_config(tmp_path / "models", **settings)) as server:
        async with server.client() as client:
            try:
                yield Stage(server, client, gate)
            finally:
                gate.touch()  # a failed test must not leave a model running


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_full_queue_refuses_at_once(tmp_path: Path) -> None:
    async with stage(tmp_path, policy="max_queue_size: 2") as on:
        calls = await on.occupy(queued=2)
        code, text = await failure(on.send())
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "Exceeds maximum queue size" in text
        await on.open_gate(calls)
        assert (await on.stats())["rejected"]["queue_full"] == 1


async def test_requests_in_flight_are_limited(tmp_path: Path) -> None:
    async with stage(tmp_path, max_inflight_requests=2) as on:
        calls = await on.occupy(queued=1)
        code, text = await failure(on.send())
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "the server is busy: 2 " in text
        assert on.server.app.core.infer_stats()["refused"]["busy"] == 1
        await on.open_gate(calls)


async def test_deadline_takes_a_request_out_of_the_queue(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        calls = await on.occupy()
        code, _ = await failure(on.send(timeout=0.2))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        await on.until(lambda stats: stats["pending"] == 0)
        await on.open_gate(calls)
        assert (await on.stats())["execution_count"] == 1  # it was never run


async def test_deadline_already_past_is_deadline_exceeded(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        calls = await on.occupy()
        code, _ = await failure(on.send(timeout=0))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED
        request = identity_request([1.0], model="blocked").SerializeToString()
        with pytest.raises(DeadlineExceededError):
            await on.server.app.core.infer(request, deadline=1)  # a nanosecond after the boot
        await on.open_gate(calls)
        assert (await on.stats())["execution_count"] == 1


async def test_timeout_of_the_request_is_unavailable(tmp_path: Path) -> None:
    async with stage(tmp_path, policy="allow_timeout_override: true") as on:
        calls = await on.occupy()
        timeout = {"timeout": wire.InferParameter(int64_param=1000)}
        code, text = await failure(on.send(parameters=timeout))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "Request timeout expired" in text
        await on.open_gate(calls)
        assert (await on.stats())["timeouts"]["queue_timeout"] == 1


async def test_caller_that_leaves_the_queue_is_unlinked_and_never_run(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        running, leaver, stayer = await on.occupy(queued=2)
        leaver.cancel()
        stats = await on.until(lambda stats: stats["pending"] == 1)
        assert stats["cancelled"]["queued"] == 1
        await on.open_gate([running, stayer])
        assert (await on.stats())["execution_count"] == 2


async def test_caller_that_leaves_while_running_changes_nothing_for_others(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as on:
        running, leaver, stayer = await on.occupy(queued=2)
        running.cancel()
        leaver.cancel()
        # The cancellations arrive in their order: once the second has, so has the first.
        await on.until(lambda stats: stats["cancelled"]["queued"] == 1)
        await on.open_gate([stayer])
        stats = await on.until(lambda stats: stats["cancelled"]["running"] == 1)
        assert stats["success"]["count"] == stats["inference_count"] == 1
        assert stats["fail"]["count"] == stats["failures"]["CANCELLED"] == 2
        metrics = (await ask(on.server.metrics_port, "/metrics")).body.decode()
        counted = r'^nv_inference_request_failure\{.*reason="CANCELED"\} 2$'
        assert re.search(counted, metrics, re.MULTILINE)


async def test_stream_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    async with stage(tmp_path, max_inflight_per_stream=8) as on:
        call = on.client.stream()
        for _ in range(4):
            await call.write(identity_request([1.0], model="blocked").SerializeToString())
        await on.until(lambda stats: (stats["running"], stats["pending"]) == (1, 3))
        call.cancel()
        await on.until(lambda stats: stats["cancelled"]["queued"] == 3)
        on.gate.touch()
        await on.until(lambda stats: stats["cancelled"] == {"queued": 3, "running": 1})
        await on.open_gate([on.send()])


async def test_every_accepted_request_is_counted_once(tmp_path: Path) -> None:
    async with stage(tmp_path, policy="max_queue_size: 1") as on:
        calls = await on.occupy(queued=1)
        await failure(on.send())
        calls.pop().cancel()
        await on.until(lambda stats: stats["pending"] == 0)
        late = on.send(timeout=0.1)
        await failure(late)
        await on.until(lambda stats: stats["pending"] == 0)
        await on.open_gate(calls)
        text = (await ask(on.server.metrics_port, "/metrics")).body.decode()
    accepted = re.search(r"^penstock_accepted_total (\d+)$", text, re.MULTILINE)
    completed = re.findall(r"^penstock_completed_total{.*} (\d+)$", text, re.MULTILINE)
    assert accepted
    assert int(accepted[1]) == sum(map(int, completed))
    assert "penstock_inflight_requests 0" in text
