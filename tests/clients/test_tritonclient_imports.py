"""Server, client and tritonclient in one process: their copies of the protocol do not meet."""

import subprocess
import sys
from itertools import permutations

import pytest

pytestmark = pytest.mark.any_transport

PACKAGES = ["penstock.app", "penstock_client", "tritonclient.grpc"]

USE = """
import numpy
from penstock import codec
from penstock_client import Client
from tritonclient.grpc import InferInput, service_pb2
assert service_pb2.ServerLiveResponse.FromString(codec.encode_server_live(True)).live
made = InferInput("x", [1], "FP32")
made.set_data_from_numpy(numpy.ones(1, numpy.float32))
Client("127.0.0.1:1").close()
print("together")
"""


@pytest.mark.parametrize("order", list(permutations(PACKAGES)), ids=" ".join)
def test_all_can_be_imported_and_used_in_any_order(order: tuple[str, ...]) -> None:
    code = "".join(f"import {package}\n" for package in order) + USE
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (found.returncode, found.stdout) == (0, b"together\n"), found.stderr.decode()


def test_all_work_together_in_one_process() -> None:
    code = """
import asyncio, sys, tempfile
from pathlib import Path
import numpy as np
from tritonclient.grpc import aio as triton
from penstock.app import App
from penstock.config import ServerConfig
from penstock.lifecycle import State
from penstock_client import AsyncClient
from tests.support.models import onnx_files
from tests.support.triton_clients import simple_inputs

async def main(repository):
    ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
    app = App(ServerConfig(model_repository=(repository,), **ports))
    await app.start()
    await app.lifecycle.reached(State.READY)
    async with triton.InferenceServerClient(app.grpc.address) as client:
        result = await client.infer("simple", simple_inputs())
        print(result.as_numpy("OUTPUT0")[0].tolist())
    async with AsyncClient(app.grpc.address) as client:
        rows = np.ones((1, 16), np.int32)
        result = await client.infer("simple", {"INPUT0": rows, "INPUT1": rows})
        print(result["OUTPUT0"][0].tolist())
    await app.stop()

with tempfile.TemporaryDirectory() as folder:
    onnx_files.write_model(Path(folder), "simple", onnx_files.simple())
    asyncio.run(main(Path(folder)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == [str(list(range(1, 17))), str([2] * 16)]
