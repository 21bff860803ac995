"""`penstock batch` as a process: with a core of its own, and against a server."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.access_files import key_entry, write_keys
from tests.support.cli import Finished, finished, penstock, started
from tests.support.fixture_models import (
    FIXTURE_BACKENDS,
    write_blocked,
    write_identity,
    write_model,
    write_simple,
)
from tests.support.models.python_files import add_python_model
from tests.support.run_server import RunningServer, run_server, server_config

from penstock.batch import model_digests

ROWS = 1000


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    write_simple(path)
    write_identity(path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows for `simple`; INPUT0 of row 5 has a value that is no INT32, INPUT1 of row 7 is null."""
    first = np.arange(ROWS * 16, dtype=np.int64).reshape(ROWS, 16)
    first[5, 3] = 3_000_000_000
    second: list[Any] = np.ones((ROWS, 16), np.int32).tolist()
    second[7] = None
    table = pa.table({"schlüssel": [f"k{i}" for i in range(ROWS)], "INPUT0": first.tolist()})
    table = table.append_column("INPUT1", pa.array(second, pa.list_(pa.int32())))
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=300)
    return tmp_path / "in.parquet"


@pytest.fixture
async def server(repository: Path, transport: str) -> AsyncIterator[RunningServer]:
    async with run_server(server_config(repository)) as running:
        yield running


def local(repository: Path) -> tuple[str, ...]:
    return ("--repository", str(repository), "--backend-directory", str(FIXTURE_BACKENDS))


async def batch(model: str, source: Path | str, output: Path, *flags: str) -> Finished:
    return await penstock("batch", model, "--input", str(source), "--output", str(output), *flags)


def check_simple(output: Path) -> None:
    """Every row but 5 and 7 once, in order, with what `simple` makes of it."""
    parts = sorted(output.glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    good = [row for row in range(ROWS) if row not in (5, 7)]
    assert table["schlüssel"].to_pylist() == [f"k{row}" for row in good]
    sums = np.array(table["OUTPUT0"].to_pylist())
    assert np.array_equal(sums, np.arange(ROWS * 16).reshape(ROWS, 16)[good] + 1)
    rejected = pq.read_table(output / "rejects").to_pylist()
    assert [(row["row"], row["key"]) for row in rejected] == [(5, "k5"), (7, "k7")]
    where = "column 'INPUT0' for input 'INPUT0' of model 'simple': "
    assert rejected[0]["reason"] == where + "3000000000 is out of the range of INT32"
    assert rejected[1]["reason"].endswith("it is null")
    assert rejected[1]["input"]["INPUT1"] is None


@pytest.mark.any_transport
async def test_rows_through_a_core_of_its_own(
    repository: Path, source: Path, tmp_path: Path
) -> None:
    flags = (*local(repository), "--key", "schlüssel", "--json", "--part-rows", "256")
    result = await batch("simple", source, tmp_path / "out", *flags)
    assert (result.code, result.err) == (0, "")
    said = json.loads(result.out)
    assert (said["state"], said["rows_in"], said["rows_out"], said["rows_rejected"]) == (
        *("done", ROWS, ROWS - 2),
        2,
    )
    check_simple(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["outputs"]) == 4
    assert len(manifest["job"]["model"]["digest"]) == 64
    again = await batch("simple", source, tmp_path / "out", *flags)
    assert (again.code, json.loads(again.out)["state"]) == (0, "already done")


async def test_rows_through_a_server(server: RunningServer, source: Path, tmp_path: Path) -> None:
    flags = ("--server", server.grpc_address, "--key", "schlüssel")
    result = await batch("simple", source, tmp_path / "out", *flags)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("done: 1000 rows in 1 parts, 2 rejected; ")
    check_simple(tmp_path / "out")


async def test_key_and_refusal_without_it(
    repository: Path, source: Path, tmp_path: Path, transport: str
) -> None:
    keys = write_keys(tmp_path / "keys.json", key_entry("jobs", "key-of-jobs"))
    async with run_server(server_config(repository, api_keys_file=str(keys))) as running:
        to = ("--server", running.grpc_address, "--key", "schlüssel")
        refused = await batch("simple", source, tmp_path / "out", *to)
        assert refused.code == 1
        assert "UNAUTHENTICATED" in refused.err
        (tmp_path / "token").write_text("key-of-jobs")
        token = ("--token-file", str(tmp_path / "token"))
        assert (await batch("simple", source, tmp_path / "out", *to, *token)).code == 0
    check_simple(tmp_path / "out")


async def test_server_that_vanishes_and_returns(
    repository: Path, source: Path, tmp_path: Path, transport: str
) -> None:
    gate = tmp_path / "gate"
    write_blocked(repository, gate)
    table = pa.table({"INPUT0": [[float(row)] for row in range(20)]})
    rows = tmp_path / "rows.parquet"
    pq.write_table(table.cast(pa.schema([("INPUT0", pa.list_(pa.float32()))])), rows)
    config = server_config(repository)
    async with run_server(config) as first:
        port = int(first.grpc_address.rpartition(":")[2])
        flags = ("--server", first.grpc_address, "--part-rows", "5", "--retry-for", "120")
        arguments = ("batch", "blocked", "--input", str(rows), "--output", str(tmp_path / "out"))
        async with started(*arguments, *flags) as process:
            while not first.app.core.engine.inflight():
                assert process.returncode is None, await finished(process)
                await asyncio.sleep(0.01)
            gate.touch()
            await first.app.stop()
            async with run_server(server_config(repository, grpc_port=port)):
                result = await finished(process)
    assert (result.code, result.err) == (0, "")
    parts = sorted((tmp_path / "out").glob("part-*"))
    values = pa.concat_tables([pq.read_table(part) for part in parts])["OUTPUT0"].to_pylist()
    assert values == [[float(row)] for row in range(20)]


async def test_server_that_stays_away_is_temporary(tmp_path: Path, source: Path) -> None:
    flags = ("--server", "localhost:1", "--timeout", "0.5", "--retry-for", "0.2")
    result = await batch("simple", source, tmp_path / "out", *flags)
    assert result.code == 75
    assert result.err.startswith("Error: model 'simple': UNAVAILABLE: ")


@pytest.mark.any_transport
async def test_sigterm_is_temporary_and_the_job_goes_on(repository: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(repository, gate)
    rows = tmp_path / "rows.npy"
    np.save(rows, np.arange(40, dtype=np.float32).reshape(20, 2))
    arguments = ("batch", "blocked", "--input", str(rows), "--output", str(tmp_path / "out"))
    flags = local(repository)
    async with started(*arguments, *flags) as process:
        while not (tmp_path / "out" / "_work" / "job.json").exists():
            assert process.returncode is None, await finished(process)
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        gate.touch()
        result = await finished(process)
    assert (result.code, result.err) == (
        75,
        "Error: stopped by SIGTERM; run the job again to go on\n",
    )
    assert (await penstock(*arguments, *flags)).code == 0
    outputs = pq.read_table(tmp_path / "out" / "part-00000.parquet")["OUTPUT0"].to_pylist()
    assert outputs == np.arange(40).reshape(20, 2).tolist()


@pytest.mark.any_transport
async def test_plan_is_told_before_anything_runs(
    repository: Path, source: Path, tmp_path: Path
) -> None:
    result = await batch(
        "simple", source, tmp_path / "out", *local(repository), "--dry-run", "--keep", "schlüssel"
    )
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert ["INPUT0", "INT32", "[16]", "INPUT0", "list<element:", "int64>"] in lines
    assert "1000 rows of 1 parquet files; 8 rows per request" in result.out
    assert not (tmp_path / "out").exists()


@pytest.mark.any_transport
@pytest.mark.parametrize(
    ("flags", "code", "fragment"),
    [
        (("--max-rejects", "1"), 3, "2 rows were rejected, more than --max-rejects 1"),
        (("--map", "INPUT0=nowhere"), 2, "input 'INPUT0': no column 'nowhere', expected INT32"),
        (("--map", "INPUT0=schlüssel"), 2, "expected INT32 [16], got string"),
        (("--batch-size", "9"), 2, "9 rows per request are more than model 'simple' takes: 8"),
        (("--output-format", "npy"), 2, "npy holds one array, and there are 2 columns"),
        (("--model-version", "7"), 1, "is not found"),
        (("--shard", "3/3"), 2, "--shard: expected I/N"),
        (("--map", "x"), 2, "--map: expected INPUT=COLUMN"),
        (("--server", "localhost:1"), 2, "--server and --repository: say one of them"),
    ],
)
async def test_exit_code_says_what_is_wrong(
    repository: Path,
    source: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    code: int,
    fragment: str,
) -> None:
    result = await batch("simple", source, tmp_path / "out", *local(repository), *flags)
    assert (result.code, fragment in " ".join(result.err.split())) == (code, True), result.err


@pytest.mark.any_transport
async def test_input_or_repository_that_is_not_there_is_told(
    repository: Path, tmp_path: Path, source: Path
) -> None:
    missing = await batch("simple", tmp_path / "no.parquet", tmp_path / "out", *local(repository))
    assert (missing.code, missing.err) == (
        2,
        f"Error: no file found at {tmp_path / 'no.parquet'}\n",
    )
    nobody = await batch("simple", source, tmp_path / "out")
    assert (nobody.code, "say --repository DIR or --server" in nobody.err) == (2, True)
    unknown = await batch("nothing", source, tmp_path / "out", *local(repository))
    assert (unknown.code, "failed to load 'nothing'" in unknown.err) == (1, True)


@pytest.mark.any_transport
async def test_rows_that_the_model_fails_on_are_rejected_with_its_reason(
    repository: Path, tmp_path: Path
) -> None:
    write_model(repository, "broken", config="max_batch_size: 4", kind="fail")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"INPUT0": [{row}], "id": "n{row}"}}\n' for row in range(6)))
    flags = (*local(repository), "--key", "id", "--json")
    result = await batch("broken", rows, tmp_path / "out", *flags)
    assert result.code == 0, result.err
    assert json.loads(result.out)["rows_rejected"] == 6
    (file,) = (tmp_path / "out" / "rejects").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["key"] for line in lines] == [f"n{row}" for row in range(6)]
    assert all(line["reason"].startswith("INTERNAL: ") for line in lines)


@pytest.mark.any_transport
def test_digest_of_a_model_is_of_what_lies_beside_its_versions_too(tmp_path: Path) -> None:
    model = add_python_model(tmp_path, "m", "import helper")
    digest = model_digests((tmp_path,))
    seen = [digest("m", "1")]
    for name in ("requirements.lock", "helper.py", "config.pbtxt"):
        (model / name).touch()
        seen.append(digest("m", "1"))
    assert len(set(seen)) == 4
    add_python_model(tmp_path, "m", "import other", version=2)
    (model / ".helper.py.swp").touch()
    assert digest("m", "1") == seen[-1]
