"""`penstock batch --engine ray` on a cluster of several nodes, one of which is lost."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.cli import finished, penstock, started
from tests.support.fixture_models import FIXTURE_BACKENDS, write_identity
from tests.support.store_world import World

from penstock.store.store import open_store

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

ROWS = 4000


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and two nodes with one each."""
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    values = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
    column = pa.array(values.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"INPUT0": column}), tmp_path / "in.parquet", row_group_size=100)
    return tmp_path / "in.parquet"


def arguments(source: Path, output: Path, address: str, *flags: str, **keys: str) -> list[str]:
    repository = source.parent / "models"
    write_identity(repository, **keys)
    return [
        *("batch", "identity", "--input", str(source), "--output", str(output)),
        *("--repository", str(repository), "--backend-directory", str(FIXTURE_BACKENDS)),
        *("--engine", "ray", "--ray-address", address, "--workers", "2", "--json", *flags),
    ]


def check(output: Path) -> None:
    tables = [pq.read_table(path) for path in sorted(output.glob("part-*"))]
    values = pa.concat_tables(tables)["OUTPUT0"].to_pylist()
    assert values == np.arange(ROWS * 2).reshape(ROWS, 2).tolist()


async def test_nodes_share_the_parts(cluster: Any, source: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    result = await penstock(
        *arguments(source, tmp_path / "out", cluster.address, "--part-rows", "500")
    )
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert (said["state"], said["rows_out"], said["parts"]) == ("done", ROWS, 8)
    check(tmp_path / "out")


async def test_parts_of_a_node_that_is_lost_are_done_by_another(
    cluster: Any, source: Path, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    lost = cluster.add_node(num_cpus=1)
    flags = ("--part-rows", "100", "--batch-size", "1", "--in-flight", "1")
    command = arguments(source, tmp_path / "out", cluster.address, *flags, execute_delay_ms="10")
    async with started(*command) as process:
        while len(list((tmp_path / "out").glob("part-*"))) < 4:
            assert process.returncode is None, await finished(process)
            await asyncio.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        result = await finished(process)
    assert result.code == 0, result.err
    check(tmp_path / "out")


async def test_each_worker_fetches_the_stores_version(cluster: Any, tmp_path: Path) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    np.save(tmp_path / "rows.npy", np.zeros((ROWS, 2), np.float32))
    with open_store(str(tmp_path / "store"), may_create=True, actor="tester") as store:
        world = World(store, str(tmp_path / "store"), tmp_path)
        world.push(1.0, aliases=("prod",))
        world.push(2.0)
    said = await penstock(
        *("batch", "m@prod", "--store", world.url, "--store-cache", str(tmp_path / "cache")),
        *("--input", str(tmp_path / "rows.npy"), "--output", str(tmp_path / "out")),
        *("--engine", "ray", "--ray-address", cluster.address, "--workers", "2"),
        *("--part-rows", "500"),
    )
    assert said.code == 0, said.err
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").glob("part-*"))]
    assert pa.concat_tables(tables)["OUTPUT0"].to_pylist() == [[1.0, 1.0]] * ROWS
    model = json.loads((tmp_path / "out" / "manifest.json").read_text())["job"]["model"]
    assert (model["version"], model["digest"][:7]) == ("1", "sha256:")


async def test_no_cluster_is_temporary(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    os.environ.pop("RAY_ADDRESS", None)
    result = await penstock(*arguments(source, tmp_path / "out", "127.0.0.1:1"))
    assert (result.code, "no Ray cluster at '127.0.0.1:1'" in result.err) == (75, True), result.err
