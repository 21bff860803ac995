"""Instances of a model that leaves their number open, on the wire."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.support.fixture_models import write_identity
from tests.support.http import ask
from tests.support.models.python_files import IDENTITY, add_python_model
from tests.support.requests import identity_request
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

BOUNDS = (
    'parameters { key: "instances_max" value { string_value: "3" } }\ninstance_group { count: 1 }\n'
)
QUICK = {
    "instance_interval_secs": 0.05,
    "instance_down_window_secs": 0.3,
    "instance_target_queue_age_ms": 5.0,
}


async def until(server: RunningServer, *samples: str) -> None:
    """Returns once the server says all of these of the model."""
    async with asyncio.timeout(60):
        while True:
            text = (await ask(server.metrics_port, "/metrics")).body.decode()
            if all(sample in text for sample in samples):
                return


def available(count: int) -> str:
    return f'penstock_available_instances{{model="m",version="1"}} {count}\n'


def changes(change: str) -> str:
    """However many: a load that comes in waves has instances come and go."""
    labels = f'model="m",version="1",change="{change}"'
    return f"penstock_instance_changes_total{{{labels}}} "


async def ask_until(client: Any, is_over: asyncio.Event) -> int:
    """Right answers in a row; anything else raises."""
    good = 0
    while not is_over.is_set():
        request = identity_request([good, 1], model="m")
        data = await client.unary("ModelInfer", request.SerializeToString())
        response = wire.ModelInferResponse.FromString(data)
        assert response.raw_output_contents == request.raw_input_contents
        good += 1
    return good


@pytest.mark.parametrize("backend", ["fixture", "python"])
async def test_instances_follow_the_load_and_lose_nothing(
    tmp_path: Path, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    if backend == "python":
        slow = IDENTITY.replace("return", "__import__('time').sleep(0.02); return")
        add_python_model(tmp_path, "m", slow, config="max_batch_size: 1\n" + BOUNDS)
    else:
        config = "max_batch_size: 1\n" + BOUNDS
        write_identity(tmp_path, "m", config=config, execute_delay_ms="20")
    async with run_server(server_config(tmp_path, **QUICK)) as server, server.client() as client:
        await until(server, available(1))
        is_over = asyncio.Event()
        clients = [asyncio.create_task(ask_until(client, is_over)) for _ in range(8)]
        await until(server, available(3), changes("added"))
        is_over.set()
        counts = await asyncio.gather(*clients)
        await until(server, available(1), changes("removed"))
        assert server.app.core.infer_stats()["completed"] == {"OK": sum(counts)}
    assert "model 'm' version 1: 1 -> 2 instances: " in caplog.text
    assert "model 'm' version 1: 2 -> 1 instances: " in caplog.text
