"""What a model runs on, and how its batches ran there, as clients are told.

On the CPU, in a Python worker, and on fake GPUs (`csrc/testing/fixture_plugin.cc`), whose lanes,
graphs and counters are those of real ones.
"""

import asyncio
import json
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tests.support.cli import penstock
from tests.support.fixture_models import FIXTURE_BACKENDS, write_plan, write_simple
from tests.support.http import ask
from tests.support.models.python_files import IDENTITY, add_python_model
from tests.support.run_server import RunningServer, run_server, server_config

from penstock.gateway.config import GatewayConfig
from penstock.gateway.standalone import FleetGateway
from penstock_client import AsyncClient, MemoryUsage

GPU = "GPU-00000000-0000-0000-0000-00000000000"
PATH = "/inference.GRPCInferenceService/ModelMetadata"
ON_BOTH = "GPU 0 (Fake GPU); GPU 1 (Fake GPU)"


async def samples(server: RunningServer) -> dict[str, float]:
    """What a scrape shows, by name and labels as they are written."""
    text = (await ask(server.metrics_port, "/metrics")).body.decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


async def run(client: AsyncClient, rows: int) -> None:
    """A batch of a plan, whose answer is right."""
    x = np.arange(rows * 16, dtype=np.float32).reshape(rows, 16)
    b = np.ones((rows, 1), np.float32)
    result = await client.infer("plan", {"x": x, "b": b})
    expected = 2 * x + b + np.arange(rows, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(result["y"], expected)


async def test_batches_are_counted_by_graph_and_without_one(tmp_path: Path) -> None:
    write_plan(tmp_path, graph_batch_sizes="1,8", lanes="1")
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        for rows in (1, 1, 8, 3):
            await run(client, rows)
        seen = await samples(server)
    of_it = f'model="plan",version="1",gpu_uuid="{GPU}0"'
    ones = seen[f'penstock_graph_runs_total{{{of_it},bucket="1"}}']
    eights = seen[f'penstock_graph_runs_total{{{of_it},bucket="8"}}']
    without = seen[f"penstock_uncaptured_runs_total{{{of_it}}}"]
    # Three rows are padded where the graph of eight was measured to be no slower.
    assert (ones, eights + without) == (2, 2)
    padded = seen[f'penstock_graph_padded_rows_total{{{of_it},bucket="8"}}']
    assert padded == (5 if eights == 2 else 0)
    assert seen[f"penstock_graph_memory_budget_bytes{{{of_it}}}"] == 1 << 30
    assert seen[f"penstock_model_device_memory_bytes{{{of_it}}}"] > 0
    info = 'penstock_model_info{model="plan",version="1",engine="Fixture 1",'
    assert seen[info + 'runs_on="GPU 0 (Fake GPU)"}'] == 1


async def test_without_graphs_every_batch_is_counted(tmp_path: Path) -> None:
    write_plan(tmp_path, cuda_graphs="0", device="0,1")
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        for rows in (1, 8, 3):
            await run(client, rows)
        seen = await samples(server)
    found = [
        seen[f'penstock_uncaptured_runs_total{{model="plan",version="1",gpu_uuid="{GPU}{i}"}}']
        for i in (0, 1)
    ]
    assert sum(found) == 3
    assert not [name for name in seen if "bucket=" in name]


async def test_duty_cycle_is_of_the_device_and_at_most_the_whole_time(tmp_path: Path) -> None:
    configuration = write_plan(tmp_path) / "config.pbtxt"
    configuration.write_text(configuration.read_text() + "instance_group { count: 4 }")
    busy = f'penstock_model_device_busy_seconds_total{{model="plan",version="1",gpu_uuid="{GPU}0"}}'
    config = server_config(tmp_path)
    begin = time.monotonic()
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        # A batch that is over before it is first asked for is too short to be counted.
        while not (seen := await samples(server))[busy]:
            await asyncio.gather(*(run(client, 8) for _ in range(16)))
    assert seen[busy] <= time.monotonic() - begin


async def test_clients_learn_the_devices_and_what_they_hold(tmp_path: Path) -> None:
    write_plan(tmp_path, device="0,1")
    write_simple(tmp_path)
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        assert (await client.model_metadata("plan")).runs_on == ON_BOTH
        assert (await client.model_metadata("simple")).runs_on == "CPU"
        (plan,) = await client.statistics("plan")
        (simple,) = await client.statistics("simple")
        with_http = await ask(server.http_port, "/v2/models/plan")
        stats = await ask(server.http_port, "/v2/models/plan/stats")
    assert [(each.type, each.id) for each in plan.memory] == [("GPU", 0), ("GPU", 1)]
    assert all(each.size_bytes > 0 for each in plan.memory)
    assert simple.memory == ()
    document = json.loads(with_http.body)
    assert document["parameters"] == {"runs_on": ON_BOTH}
    assert document["name"] == "plan"
    memory = json.loads(stats.body)["model_stats"][0]["memory_usage"]
    assert [
        MemoryUsage(**{"type": m["type"], "id": m["id"], "size_bytes": m["byte_size"]})
        for m in memory
    ] == list(plan.memory)


async def test_it_is_trailing_metadata_that_other_clients_pass_over(tmp_path: Path) -> None:
    write_plan(tmp_path)
    config = server_config(tmp_path)
    async with run_server(config) as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            call = channel.unary_unary(PATH, None, None)(b"\n\x04plan")
            await call
            trailing = {str(key): value for key, value in await call.trailing_metadata() or ()}
        assert trailing["penstock-runs-on"] == "GPU 0 (Fake GPU)"
        async with triton_grpc.InferenceServerClient(server.grpc_address) as triton:
            found = await triton.get_model_metadata("plan", as_json=True)
            statistics = await triton.get_inference_statistics("plan", as_json=True)
        assert [each["name"] for each in found["inputs"]] == ["x", "b"]
        (memory,) = statistics["model_stats"][0]["memory_usage"]
        assert memory["type"] == "GPU"
        async with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as triton:
            found = await triton.get_model_metadata("plan")
        assert [each["name"] for each in found["outputs"]] == ["y", "n"]


async def test_unknown_model_is_still_not_found(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            call = channel.unary_unary(PATH, None, None)(b"\n\x01x")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "penstock-runs-on" not in str(raised.value.trailing_metadata())


@pytest.mark.any_transport
async def test_python_model_runs_in_a_worker(tmp_path: Path) -> None:
    add_python_model(tmp_path, "python", IDENTITY)
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        assert (await client.model_metadata("python")).runs_on == "Python worker"


@pytest.mark.any_transport
async def test_gateway_of_a_fleet_tells_it_too(tmp_path: Path) -> None:
    write_plan(tmp_path)
    async with run_server(server_config(tmp_path)) as server:
        gateway = FleetGateway(GatewayConfig(upstream=(server.grpc_address,), http_port=0))
        await gateway.start()
        try:
            while (reply := await ask(gateway.http.port, "/v2/models/plan")).status == 503:
                pass
        finally:
            await gateway.stop()
    assert reply.json["parameters"] == {"runs_on": "GPU 0 (Fake GPU)"}


@pytest.mark.any_transport
async def test_commands_show_it(tmp_path: Path) -> None:
    write_plan(tmp_path, device="1")
    write_simple(tmp_path)
    plugins = ("--backend-directory", str(FIXTURE_BACKENDS))
    checked = await penstock("check", str(tmp_path), *plugins, "--json")
    places = {each["name"]: each["runs_on"] for each in json.loads(checked.out)}
    assert places == {"plan": "GPU 1 (Fake GPU)", "simple": "CPU"}
    async with run_server(server_config(tmp_path)) as server:
        url = ("--url", server.grpc_address)
        metadata = await penstock("models", "metadata", "plan", *url)
        stats = await penstock("models", "stats", *url)
    assert ", runs on GPU 1 (Fake GPU)\n" in metadata.out
    rows = {line.split()[0]: line for line in stats.out.splitlines() if line.split()}
    assert "GPU 1: " in rows["plan"]
    assert rows["simple"].split()[-1] == "-"
