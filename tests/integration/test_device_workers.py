"""Models in the worker process of a GPU, which is a fixture's: what clients see when it ends."""

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.fixture_models import FAKE_DEVICES, FIXTURE_BACKENDS
from tests.support.http import ask
from tests.support.run_server import run_server, serve_process, server_config

from penstock.config import ServerConfig
from penstock_client import AsyncClient, RetryPolicy, RpcError, UnavailableError

ONCE = RetryPolicy(max_attempts=1)
ABOUT, LOSE_DEVICE, WAIT = -9, -4, -7
_PATIENCE_S = 30


def add_model(repository: Path, name: str, count: int = 1, **parameters: object) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.plan").write_text("plan")
    own = [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    ]
    config = [
        f"instance_group {{ kind: KIND_GPU gpus: [0] count: {count} }}",
        "max_batch_size: 8",
        *own,
    ]
    (repository / name / "config.pbtxt").write_text(
        "\n".join(['backend: "device_fixture" default_model_filename: "model.plan"', *config])
    )


def device_config(repository: Path) -> ServerConfig:
    return server_config(repository, backend_directory=(FAKE_DEVICES, FIXTURE_BACKENDS))


async def asked(client: AsyncClient, value: float, model: str = "m") -> float:
    result = await client.infer(model, {"INPUT0": np.array([[value]], np.float32)})
    answer: float = result["OUTPUT0"].item()
    return answer


async def worker_of(client: AsyncClient, model: str = "m") -> int:
    """Its process; 0: there is none."""
    with pytest.raises(RpcError) as raised:
        await asked(client, ABOUT, model)
    found = re.search(r"pid=(\d+)", str(raised.value))
    return int(found[1]) if found else 0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not await condition():
            pass


async def test_killed_worker_ends_what_is_in_flight_and_comes_back(tmp_path: Path) -> None:
    how, never = tmp_path / "how", tmp_path / "never"
    add_model(tmp_path / "models", "m", count=2, load_file=how, file=never)
    config = device_config(tmp_path / "models")
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=ONCE) as client:
        assert await asked(client, 5) == 5
        pid = await worker_of(client)
        how.write_text("wait")
        in_flight = [asyncio.ensure_future(asked(client, WAIT)) for _ in range(2)]
        waiting = never.with_name("never.waiting")
        await until(lambda: _and(client.server_live(), waiting.exists()))
        os.kill(pid, signal.SIGKILL)
        for outcome in await asyncio.gather(*in_flight, return_exceptions=True):
            assert isinstance(outcome, UnavailableError)
            assert "model 'm' version 1: the worker of GPU 0 was killed by SIGKILL" in str(outcome)
        assert not await client.model_ready("m")
        with pytest.raises(UnavailableError, match="GPU 0 was killed by SIGKILL and is being"):
            await asked(client, 5)
        how.write_text("well")
        await until(lambda: client.model_ready("m"))
        assert await asked(client, 6) == 6
        assert await worker_of(client) != pid
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
        assert 'penstock_worker_restarts_total{model="m",version="1"} 1' in text


async def _and(call: Awaitable[bool], known: bool) -> bool:
    return await call and known


async def test_lost_device_is_served_by_another_process(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    add_model(tmp_path, "n")
    config = device_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=ONCE) as client:
        pid = await worker_of(client)
        assert await worker_of(client, "n") == pid
        with pytest.raises(UnavailableError, match="the worker of GPU 0 lost the device and ended"):
            await asked(client, LOSE_DEVICE)
        await until(lambda: client.model_ready("m"))
        await until(lambda: client.model_ready("n"))
        assert await asked(client, 5) == 5
        assert await asked(client, 6, "n") == 6


async def test_kills_under_load_lose_no_request(tmp_path: Path) -> None:
    add_model(tmp_path, "m", count=2)
    outcomes = {"right": 0, "unavailable": 0, "about": 0}
    ended = asyncio.Event()

    async def call(client: AsyncClient, caller: int) -> None:
        number = caller
        while not ended.is_set():
            number = (number + 8) % 100_000
            try:
                assert await asked(client, number + 1) == number + 1
            except UnavailableError as error:
                assert "the worker of GPU 0" in str(error)
                outcomes["unavailable"] += 1
            else:
                outcomes["right"] += 1

    async def is_another(client: AsyncClient, pids: list[int]) -> bool:
        outcomes["about"] += 1
        pids.append(await worker_of(client))
        return pids[-1] not in {0, *pids[:-1]}

    async def kill(client: AsyncClient) -> None:
        pids: list[int] = []
        for _ in range(3):
            await until(lambda: is_another(client, pids))
            os.kill(pids[-1], signal.SIGKILL)
        await until(lambda: is_another(client, pids))
        ended.set()

    config = device_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=ONCE) as client:
        await asyncio.gather(kill(client), *(call(client, caller) for caller in range(8)))
        (statistics,) = await client.statistics("m")
    assert outcomes["right"] > 0
    assert statistics.success.count == outcomes["right"]
    assert statistics.fail.count == outcomes["unavailable"] + outcomes["about"]


async def test_unload_of_the_last_model_ends_the_process(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    config = server_config(
        tmp_path,
        backend_directory=(FAKE_DEVICES, FIXTURE_BACKENDS),
        model_control_mode="explicit",
        load_model=("m",),
    )
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=ONCE) as client:
        process = psutil.Process(await worker_of(client))
        await client.unload_model("m")
        _, alive = await asyncio.to_thread(psutil.wait_procs, [process], timeout=_PATIENCE_S)
        assert alive == []
        await client.load_model("m")
        assert await asked(client, 5) == 5


@pytest.mark.any_transport
async def test_killed_server_leaves_no_worker(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    flags = ("--backend-directory", str(FAKE_DEVICES))
    async with serve_process(tmp_path, *flags) as server:
        async with AsyncClient(server.addresses["gRPC"], retry=ONCE) as client:
            process = psutil.Process(await worker_of(client))
        os.kill(server.pid, signal.SIGKILL)
        _, alive = await asyncio.to_thread(psutil.wait_procs, [process], timeout=_PATIENCE_S)
        assert alive == []
