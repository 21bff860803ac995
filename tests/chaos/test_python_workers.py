"""Workers are killed under load: every request is answered once, rightly or UNAVAILABLE."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
from tests.support.models.python_files import add_python_model, parameters
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient, RetryPolicy, UnavailableError

MODEL = """
    import os
    import numpy as np
    class Model:
        inputs = {"x": ("INT64", (1,))}
        outputs = {"y": ("INT64", (1,)), "pid": ("INT64", (1,))}
        def predict(self, batch):
            x = batch["x"]
            return {"y": x * 3, "pid": np.full_like(x, os.getpid())}
"""
CONFIG = "instance_group { count: 2 }\n" + parameters(max_restarts=1000)
KILLS = 6
CALLERS = 16


async def test_killed_workers_lose_no_request_and_harm_nobody_else(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", MODEL, config=CONFIG)
    pids: asyncio.Queue[int] = asyncio.Queue()
    ended = asyncio.Event()
    outcomes = {"right": 0, "unavailable": 0}

    async def call(client: AsyncClient, caller: int) -> None:
        number = caller
        while not ended.is_set():
            number += CALLERS
            try:
                result = await client.infer("m", {"x": np.array([[number]])})
            except UnavailableError as error:
                assert "its worker" in str(error)
                outcomes["unavailable"] += 1
            else:
                assert result["y"].item() == 3 * number
                outcomes["right"] += 1
                pids.put_nowait(result["pid"].item())

    async def kill() -> None:
        killed: set[int] = set()
        while len(killed) < KILLS:
            pid = await pids.get()
            if pid not in killed:
                killed.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        while await pids.get() in killed:  # somebody answers again
            pass
        ended.set()

    once = RetryPolicy(max_attempts=1)
    config = server_config(tmp_path)
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=once) as client:
        await asyncio.gather(kill(), *(call(client, caller) for caller in range(CALLERS)))
        (statistics,) = await client.statistics("m")
    assert outcomes["right"] > KILLS
    assert statistics.success.count == outcomes["right"]
    assert statistics.fail.count == outcomes["unavailable"]
