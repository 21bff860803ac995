"""`penstock scaler` as a command, in front of real servers."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from tests.support.cli import penstock
from tests.support.fixture_models import write_blocked
from tests.support.http import ask
from tests.support.keda import Keda, keda_channel
from tests.support.requests import identity_request
from tests.support.run_server import run_server, server_config

from penstock.scaling.reading import METRIC_NAMES

pytestmark = pytest.mark.any_transport

RULES = Path(__file__).parents[2] / "server" / "deploy" / "prometheus-adapter" / "rules.yaml"


@asynccontextmanager
async def scaler_process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command, and the address that it serves KEDA on."""
    command = ["-m", "penstock", "scaler", "--grpc-port", "0", "--interval-secs", "0.05", *flags]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        lines = []
        while line := (await process.stderr.readline()).decode():
            lines.append(line)
            if found := re.search(r"scaler is ready: gRPC (\S+)", line):
                break
        else:
            raise AssertionError("".join(lines))
        yield process, found[1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_keda_sees_the_queues_of_real_servers_and_the_command_stops(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    config = server_config(tmp_path / "models")
    message = identity_request([1.0], model="blocked").SerializeToString()
    async with run_server(config) as one, run_server(config) as two:
        addresses = [f"127.0.0.1:{each.metrics_port}" for each in (one, two)]
        async with (
            one.client() as first,
            two.client() as second,
            scaler_process("--replica", ",".join(addresses), "--idle-secs", "0") as (process, at),
            keda_channel(at) as channel,
        ):
            keda = Keda(channel, modelName="blocked", metric="concurrency", target="1")
            stream = keda.stream()
            assert not (await stream.read()).result
            assert await keda.metric() == (0, 0.0)
            calls = [each.unary("ModelInfer", message) for each in (first, first, second)]
            assert (await stream.read()).result
            while await keda.metric() != (3, 3.0):
                assert (await keda.metric())[1] <= 3
            assert await keda.is_active()
            gate.touch()
            await asyncio.gather(*calls)
            while await keda.metric() != (0, 0.0):
                pass
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_metrics_that_autoscaling_reads_are_those_of_a_server(tmp_path: Path) -> None:
    write_blocked(tmp_path / "models", tmp_path / "gate")
    async with run_server(server_config(tmp_path / "models")) as server:
        text = (await ask(server.metrics_port, "/metrics")).body.decode()
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert METRIC_NAMES <= families
    rules = yaml.safe_load(RULES.read_text())["externalRules"]
    queried = {
        n for rule in rules for n in re.findall(r"\b(?:nv|penstock)_\w+", rule["metricsQuery"])
    }
    assert queried and queried <= families


async def test_settings_that_will_not_do_are_told_all_at_once() -> None:
    flags = ["--replica", "here", "--min-replicas", "5", "--max-replicas", "2"]
    done = await penstock("scaler", *flags, "--webhook-url", "ftp:")
    assert done.code == 2
    for text in (
        "--replica: expected HOST:PORT, got 'here'",
        "--max-replicas: 2 is less than --min-replicas",
        "--webhook-url: expected http:// or https://, got 'ftp:'",
        "--webhook-url: needs --webhook-secret-file",
    ):
        assert text in done.err


async def test_port_that_is_taken_is_told_and_the_command_fails() -> None:
    async with scaler_process("--replica", "127.0.0.1:1") as (_, address):
        port = address.rpartition(":")[2]
        done = await penstock("scaler", "--replica", "127.0.0.1:1", "--grpc-port", port)
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port} for KEDA: Address already in use" in done.err
