"""/metrics of a whole server: what is there, and that scrapes without end hurt nobody."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.fixture_models import write_blocked, write_simple
from tests.support.http import ask, post
from tests.support.http_requests import simple_json
from tests.support.models.python_files import add_python_model
from tests.support.requests import identity_request, simple_request
from tests.support.run_server import RunningServer, run_server, server_config

from penstock_client import AsyncClient, RetryPolicy, RpcError

README = Path(__file__).parents[2] / "server" / "README.md"


async def scrape(server: RunningServer) -> dict[str, float]:
    """Values by name and labels, as they are written."""
    text = (await ask(server.metrics_port, "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


async def scrape_until(
    server: RunningServer, is_so: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """The first scrape of which it is so: one that comes soon after another may show the same."""
    while not is_so(seen := await scrape(server)):
        pass
    return seen


async def test_gauges_tell_of_a_queue_behind_a_batch_that_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    of_it = '{model="blocked",version="1"}'
    pending, running = f"penstock_pending_requests{of_it}", f"penstock_running_requests{of_it}"
    age = f"penstock_oldest_request_age_seconds{of_it}"
    async with (
        run_server(server_config(tmp_path / "models")) as server,
        server.client() as client,
    ):
        request = identity_request([1.0], model="blocked").SerializeToString()
        calls = [asyncio.ensure_future(client.unary("ModelInfer", request)) for _ in range(3)]
        seen = await scrape_until(server, lambda it: (it[pending], it[running]) == (2, 1))
        assert seen[f"penstock_busy_instances{of_it}"] == 1
        assert seen[f"penstock_available_instances{of_it}"] == 1
        assert seen[f"nv_inference_pending_request_count{of_it}"] == 2
        assert (seen["TotalQueuedRequests"], seen["TotalRunningRequests"]) == (2, 1)
        young = seen[age]
        assert young > 0
        await scrape_until(server, lambda it: it[age] > young)
        gate.touch()
        await asyncio.gather(*calls)
        done = f"penstock_request_duration_seconds_count{of_it}"
        seen = await scrape_until(server, lambda it: it[done] == 3)
    assert seen[age] == 0
    for phase in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert seen[f"penstock_{phase}_duration_seconds_count{of_it}"] == 3


async def test_every_metric_of_a_server_is_in_the_table(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|", README.read_text(), re.M)
    exposed = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert set(exposed) <= set(rows)
    assert len(exposed) > 40


async def test_scrapes_without_end_leave_requests_and_counts_whole(tmp_path: Path) -> None:
    write_simple(tmp_path)
    request = simple_request().SerializeToString()
    done = asyncio.Event()

    async def scrape_without_end(server: RunningServer) -> list[float]:
        seen = []
        while not done.is_set():
            values = await scrape(server)
            seen.append(values['nv_inference_request_success{model="simple",version="1"}'])
        return seen

    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        scrapers = [asyncio.ensure_future(scrape_without_end(server)) for _ in range(4)]
        for _ in range(20):
            await asyncio.gather(*(client.unary("ModelInfer", request) for _ in range(10)))
        done.set()
        counts = await asyncio.gather(*scrapers)
        (version,) = server.app.models.statistics("simple")
    assert version.counters["success"]["count"] == 200
    assert all(seen == sorted(seen) for seen in counts)


async def test_workers_that_are_started_again_are_counted(tmp_path: Path) -> None:
    lines = ["import os", "class Model:", '    inputs = {"x": ("FP32", (1,))}']
    lines += ['    outputs = {"y": ("FP32", (1,))}', "    def predict(self, batch):"]
    lines += ["        if batch['x'][0, 0] == 0:", "            os._exit(3)"]
    add_python_model(tmp_path, "m", "\n".join([*lines, "        return {'y': batch['x']}"]))
    restarts = 'penstock_worker_restarts_total{model="m",version="1"}'
    async with run_server(server_config(tmp_path)) as server:
        assert (await scrape(server))[restarts] == 0
        async with AsyncClient(server.grpc_address, retry=RetryPolicy(max_attempts=1)) as client:
            with pytest.raises(RpcError, match="its worker"):
                await client.infer("m", {"x": np.zeros((1, 1), np.float32)})
        await scrape_until(server, lambda seen: seen[restarts] == 1)


async def test_http_requests_are_counted_by_route(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        for _ in range(3):
            await post(server.http_port, "/v2/models/simple/infer", simple_json())
        await post(server.http_port, "/v2/models/other/infer", simple_json())
        await ask(server.http_port, "/v2/health/ready")
        seen = await scrape(server)
    counted = {name: value for name, value in seen.items() if "http_requests" in name}
    assert counted == {
        'penstock_http_requests_total{route="/v2/models/{model}/infer",code="200"}': 3,
        'penstock_http_requests_total{route="/v2/models/{model}/infer",code="404"}': 1,
        'penstock_http_requests_total{route="/v2/health/ready",code="200"}': 1,
    }
    assert seen["penstock_http_inflight_requests"] == 0
