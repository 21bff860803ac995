"""`penstock infer` and `penstock models` against a server."""

import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.cli import finished, penstock, started
from tests.support.fixture_models import write_blocked, write_identity, write_simple
from tests.support.http import ask
from tests.support.run_server import serve_process

pytestmark = [pytest.mark.any_transport, pytest.mark.lengthy]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    write_simple(path)
    write_identity(path)
    return path


@pytest.fixture
async def url(repository: Path) -> AsyncIterator[str]:
    async with serve_process(repository) as server:
        yield server.addresses["gRPC"]


@pytest.fixture
async def explicit(repository: Path) -> AsyncIterator[str]:
    flags = ("--model-control-mode=explicit", "--load-model=simple")
    async with serve_process(repository, *flags) as server:
        yield server.addresses["gRPC"]


def save_simple(path: Path, rows: int) -> Path:
    first = np.arange(rows * 16, dtype=np.int32).reshape(rows, 16)
    np.savez(path, INPUT0=first, INPUT1=np.ones_like(first))
    return path


async def test_npz_in_and_npz_out_in_several_batches(url: str, tmp_path: Path) -> None:
    rows, answers = save_simple(tmp_path / "in.npz", 21), tmp_path / "out.npz"
    result = await penstock("infer", "simple", str(rows), "--url", url, "--output", str(answers))
    assert (result.code, result.err) == (0, "")
    with np.load(answers) as outputs:
        assert np.array_equal(outputs["OUTPUT0"].ravel(), np.arange(21 * 16) + 1)
        assert np.array_equal(outputs["OUTPUT1"].ravel(), np.arange(21 * 16) - 1)
    stats = json.loads((await penstock("models", "stats", "simple", "--url", url, "--json")).out)
    assert (stats[0]["success"]["count"], stats[0]["inference_count"]) == (3, 21)


async def test_csv_in_and_json_out(url: str, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("1.5,2,3\n4,5,6\n")
    result = await penstock("infer", "identity", str(path), "--url", url, "--json")
    assert result.code == 0
    (output,) = json.loads(result.out)["outputs"]
    assert (output["name"], output["datatype"]) == ("OUTPUT0", "FP32")
    assert output["data"] == [[1.5, 2, 3], [4, 5, 6]]


async def test_table_has_a_line_per_row(url: str, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("[[7.5], [8.5]]")
    result = await penstock("infer", "identity", "--input", f"INPUT0={path}", "--url", url)
    lines = [line.split() for line in result.out.splitlines()]
    assert ["0", "7.5"] in lines
    assert ["1", "8.5"] in lines


@pytest.mark.parametrize(
    ("model", "shape", "fault"),
    [
        ("none", (1, 16), "NOT_FOUND: Request for unknown model: 'none' is not found"),
        ("simple", (1, 16), "model 'simple' has 2 inputs ('INPUT0', 'INPUT1')"),
        ("identity", (1, 2, 2), "has shape [1, 2, 2]"),
    ],
)
async def test_what_does_not_fit_is_one_line(
    url: str, tmp_path: Path, model: str, shape: tuple[int, ...], fault: str
) -> None:
    path = tmp_path / "in.npy"
    np.save(path, np.zeros(shape, np.float32))
    result = await penstock("infer", model, str(path), "--url", url)
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert fault in result.err


async def test_timeout_is_one_line(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    path = tmp_path / "in.npy"
    np.save(path, np.zeros((1, 1), np.float32))
    async with serve_process(tmp_path / "models") as server:
        url = server.addresses["gRPC"]
        result = await penstock("infer", "blocked", str(path), "--url", url, "--timeout", "0.2")
        gate.touch()
    assert result.code == 1
    assert result.err.startswith("Error: DEADLINE_EXCEEDED")
    assert len(result.err.splitlines()) == 1


async def test_interrupt_is_quiet(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    path = tmp_path / "in.npy"
    np.save(path, np.zeros((1, 1), np.float32))
    async with serve_process(tmp_path / "models") as server:
        url, metrics = server.addresses["gRPC"], server.addresses["metrics"]
        async with started("infer", "blocked", str(path), "--url", url) as process:
            await _until_running(metrics)
            process.send_signal(signal.SIGINT)
            end = await finished(process)
        gate.touch()
    assert (end.code, end.out, end.err.strip()) == (130, "", "")


async def _until_running(metrics: str) -> None:
    """Until the metrics tell of a request in a batch; each scrape gives the server time."""
    port = int(metrics.rpartition(":")[2])
    while not re.search(
        rb"(?m)^penstock_running_requests{.*} 1", (await ask(port, "/metrics")).body
    ):
        pass


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("127.0.0.1:1", "no server answers at 127.0.0.1:1: "),
        ("http://127.0.0.1:1", "url 'http://127.0.0.1:1': expected a gRPC target"),
    ],
)
@pytest.mark.parametrize("command", [["models", "index"], ["infer", "m", "a.npy"]])
async def test_no_server_is_one_line(command: list[str], url: str, fault: str) -> None:
    result = await penstock(*command, "--url", url)
    assert result.code == 1
    assert result.err.startswith(f"Error: {fault}")
    assert len(result.err.splitlines()) == 1


async def test_index_load_and_unload(explicit: str) -> None:
    async def states() -> dict[str, str]:
        result = await penstock("models", "index", "--url", explicit, "--json")
        assert result.code == 0
        return {entry["name"]: entry["state"] for entry in json.loads(result.out)}

    assert await states() == {"identity": "", "simple": "READY"}
    loaded = await penstock("models", "load", "identity", "--url", explicit)
    assert (loaded.code, loaded.out) == (0, "loaded identity\n")
    unloaded = await penstock("models", "unload", "simple", "--url", explicit)
    assert (unloaded.code, unloaded.out) == (0, "unloaded simple\n")
    after = await states()
    assert after["identity"] == "READY"
    assert after["simple"] != "READY"


async def test_refused_load_says_which_flag_allows_it(url: str) -> None:
    result = await penstock("models", "load", "simple", "--url", url)
    assert result.code == 1
    assert "start the server with --model-control-mode explicit" in result.err


async def test_load_takes_a_configuration(explicit: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"backend": "fixture", "max_batch_size": 5}))
    result = await penstock("models", "load", "identity", "--url", explicit, "--config", str(path))
    assert (result.code, result.err) == (0, "")
    config = await penstock("models", "config", "identity", "--url", explicit, "--json")
    assert json.loads(config.out)["max_batch_size"] == 5


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["load", "none"], "failed to load 'none'"),
        (["metadata", "none"], "NOT_FOUND"),
        (["config", "simple", "--model-version", "9"], "version 9 is not found"),
        (["stats", "none"], "NOT_FOUND"),
        (["load", "simple", "--config", "/none.json"], "cannot read /none.json: no such file"),
    ],
)
async def test_refusal_is_one_line(explicit: str, arguments: list[str], fault: str) -> None:
    result = await penstock("models", *arguments, "--url", explicit)
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert fault in result.err


async def test_tables_name_tensors_fields_and_counts(url: str) -> None:
    metadata = await penstock("models", "metadata", "simple", "--url", url)
    assert "INPUT0" in metadata.out
    assert "[-1, 16]" in metadata.out
    config = await penstock("models", "config", "simple", "--url", url)
    assert ["max_batch_size", "8"] in [line.split() for line in config.out.splitlines()]
    stats = await penstock("models", "stats", "--url", url)
    assert {line.split()[0] for line in stats.out.splitlines()[2:] if line.split()} == {
        "identity",
        "simple",
    }
