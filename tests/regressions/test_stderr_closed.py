"""A server started with `2>&-` logged into whatever got the number 2, and aborted at its end."""

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from tests.support.fixture_models import FIXTURE_BACKENDS, write_simple
from tests.support.ports import reserved_port
from tests.support.raw_grpc import RawClient, raw_client
from tests.support.requests import simple_request
from tritonclient.grpc import service_pb2 as wire

pytestmark = pytest.mark.any_transport


async def until_loaded(client: RawClient) -> None:
    """Returns once the server listens and is ready; every look is a round trip."""
    async with asyncio.timeout(30):
        reply = b""
        while not wire.ServerReadyResponse.FromString(reply).ready:
            reply = await client.unary("ServerReady", wait_for_ready=True)


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
async def test_server_without_standard_streams_serves_and_ends_well(
    tmp_path: Path, closed: str
) -> None:
    write_simple(tmp_path)
    with reserved_port() as port:
        await serves_and_ends_well(tmp_path, port, closed)


async def serves_and_ends_well(tmp_path: Path, port: int, closed: str) -> None:
    command = [sys.executable, "-m", "penstock", "serve", str(tmp_path), "--grpc-port", str(port)]
    command += ["--backend-directory", str(FIXTURE_BACKENDS), "--shutdown-grace-secs", "0"]
    command += ["--allow-http", "false", "--allow-metrics", "false"]
    shell = await asyncio.create_subprocess_shell(f"exec {shlex.join(command)} {closed}")
    try:
        async with raw_client(f"127.0.0.1:{port}") as client:
            request = simple_request().SerializeToString()
            await until_loaded(client)
            await client.unary("ModelInfer", request, timeout=60)
        assert os.readlink(f"/proc/{shell.pid}/fd/2") == os.devnull
        shell.send_signal(signal.SIGTERM)
        assert await shell.wait() == 0
    finally:
        if shell.returncode is None:
            shell.kill()
            await shell.wait()
