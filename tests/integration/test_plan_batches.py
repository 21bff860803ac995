"""Batches of a plan: never of more rows than it was built for.

On a fake GPU, in its worker; `csrc/testing/fake_plan.h` has the words of a plan's file.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.support.fixture_models import FAKE_DEVICES, FIXTURE_BACKENDS
from tests.support.run_server import run_server, server_config

from penstock.config import ServerConfig
from penstock_client import AsyncClient, InferResult, InvalidArgumentError

pytestmark = pytest.mark.any_transport

PLAN = """backend: "device_fixture" default_model_filename: "model.plan"
    instance_group { kind: KIND_GPU gpus: [0] count: 1 }
    parameters { key: "kind" value { string_value: "plan" } }"""
SHAPES_IN_FULL = 'input { name: "x" dims: [-1, 16] } input { name: "b" }'


def server_of_a_plan(repository: Path, rows: int, config: str) -> ServerConfig:
    directory = repository / "plan" / "1"
    directory.mkdir(parents=True)
    (directory / "model.plan").write_text(f"fake-plan rows={rows}")
    (repository / "plan" / "config.pbtxt").write_text(f"{PLAN} {config}")
    return server_config(
        repository,
        backend_directory=(FAKE_DEVICES, FIXTURE_BACKENDS),
        exit_on_error=False,
        strict_readiness=False,
    )


async def ask(client: AsyncClient, rows: int) -> InferResult:
    x = np.ones((rows, 16), np.float32)
    return await client.infer("plan", {"x": x, "b": np.ones((rows, 1), np.float32)})


async def test_plan_without_a_batch_size_is_served_in_batches_that_it_was_built_for(
    tmp_path: Path,
) -> None:
    config = server_of_a_plan(tmp_path, 12, "")
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        answers = await asyncio.gather(*(ask(client, 1) for _ in range(64)))
        assert len(answers) == 64
        assert (await client.model_config("plan"))["max_batch_size"] == 12
        with pytest.raises(InvalidArgumentError, match="batch-size must be <= 12"):
            await ask(client, 13)
        (seen,) = await client.statistics("plan")
    assert max(each.batch_size for each in seen.batches) <= 12


async def test_batch_size_beyond_the_plan_is_refused_by_both_numbers(tmp_path: Path) -> None:
    config = server_of_a_plan(tmp_path, 12, "max_batch_size: 13")
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        (entry,) = await client.repository_index()
    assert entry.state == "UNAVAILABLE"
    assert entry.reason == (
        "failed to load 'plan', config.pbtxt: max_batch_size: 13 is more rows than the plan was "
        "built for, 12: expected at most 12, or a plan that is built anew (penstock build-engine)"
    )


async def test_plan_whose_shapes_are_listed_in_full_has_no_rows(tmp_path: Path) -> None:
    """Its profile is of one to twelve: of rows these would be batched, of data they are as sent."""
    config = server_of_a_plan(tmp_path, 12, SHAPES_IN_FULL)
    async with run_server(config) as server, AsyncClient(server.grpc_address) as client:
        assert (await client.model_config("plan"))["max_batch_size"] == 0
        assert (await ask(client, 2))["y"].shape == (2, 16)
        with pytest.raises(InvalidArgumentError, match="no profile of the plan takes these shapes"):
            await ask(client, 13)
