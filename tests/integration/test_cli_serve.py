"""`penstock serve` and `penstock check` as processes."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.support.cli import penstock
from tests.support.fixture_models import FIXTURE_BACKENDS, write_identity, write_simple
from tests.support.run_server import serve_process

pytestmark = pytest.mark.any_transport

PORTS = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
PLUGINS = ("--backend-directory", str(FIXTURE_BACKENDS))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path)
    return tmp_path


async def test_positional_and_flagged_repositories_are_all_served(tmp_path: Path) -> None:
    write_simple(tmp_path / "a")
    write_identity(tmp_path / "b")
    flags = ("--model-repository", str(tmp_path / "b"))
    async with serve_process(tmp_path / "a", *flags) as server:
        result = await penstock("models", "index", "--url", server.addresses["gRPC"], "--json")
    assert [entry["name"] for entry in json.loads(result.out)] == ["identity", "simple"]


async def test_environment_sets_what_flags_do_not(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_MODEL_CONTROL_MODE", "explicit")
    monkeypatch.setenv("PENSTOCK_ALLOW_METRICS", "false")
    async with serve_process(repository) as server:
        assert "metrics" not in server.addresses
        result = await penstock("models", "index", "--url", server.addresses["gRPC"], "--json")
    assert [entry["state"] for entry in json.loads(result.out)] == [""]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_cleanly(repository: Path, number: signal.Signals) -> None:
    async with serve_process(repository, "--shutdown-grace-secs=0") as server:
        os.kill(server.pid, number)
        assert await server.finish() == 0
    assert not any("Traceback" in line for line in server.lines)


async def test_taken_port_is_told_and_exits_1(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await penstock("serve", str(repository), *PLUGINS, *PORTS, f"--grpc-port={port}")
    assert result.code == 1
    assert f"cannot listen on 127.0.0.1:{port} for gRPC" in result.err.splitlines()[-1]


async def test_unreadable_repository_is_told_and_exits_1(tmp_path: Path) -> None:
    result = await penstock("serve", str(tmp_path / "none"), *PORTS)
    assert result.code == 1
    assert "cannot read model repository" in result.err.splitlines()[-1]


async def test_model_that_does_not_load_ends_the_start(repository: Path) -> None:
    (repository / "simple" / "config.pbtxt").write_text("max_batch_size: wrong\n")
    result = await penstock("serve", str(repository), *PLUGINS, *PORTS)
    assert result.code == 1
    assert "simple" in result.err


async def test_check_of_a_sound_repository(repository: Path) -> None:
    result = await penstock("check", str(repository), *PLUGINS)
    assert (result.code, result.err) == (0, "")
    assert ["simple", "1", "fixture", "CPU", "ok"] in [
        line.split() for line in result.out.splitlines()
    ]


async def test_check_tells_every_fault_of_every_model(repository: Path) -> None:
    (repository / "bad" / "1").mkdir(parents=True)
    (repository / "bad" / "config.pbtxt").write_text('backend: "fixture"\nmax_batch_size: -1\n')
    (repository / "worse").mkdir()
    (repository / "worse" / "config.pbtxt").write_text("max_batch_size: wrong\n")
    result = await penstock("check", str(repository), *PLUGINS)
    assert result.code == 1
    assert any(line.startswith("Error: bad: config.pbtxt") for line in result.err.splitlines())
    assert any(line.startswith("Error: worse: config.pbtxt") for line in result.err.splitlines())
    assert ["simple", "1", "fixture", "CPU", "ok"] in [
        line.split() for line in result.out.splitlines()
    ]


async def test_check_prints_json(repository: Path) -> None:
    result = await penstock("check", "--model-repository", str(repository), *PLUGINS, "--json")
    (model,) = json.loads(result.out)
    assert (model["name"], model["versions"], model["faults"]) == ("simple", [1], [])
    assert model["runs_on"] == "CPU"


async def test_check_of_an_unreadable_repository_exits_1(tmp_path: Path) -> None:
    result = await penstock("check", str(tmp_path / "none"))
    assert result.code == 1
    assert len(result.err.splitlines()) == 1
    assert "cannot read model repository" in result.err


async def test_check_that_finds_no_model_exits_1(tmp_path: Path) -> None:
    result = await penstock("check", str(tmp_path))
    assert result.code == 1
    assert result.err.startswith(f"Error: no model found in '{tmp_path}'")


async def test_check_of_nothing_is_wrong_usage() -> None:
    result = await penstock("check")
    assert result.code == 2
    assert "--model-repository" in result.err
