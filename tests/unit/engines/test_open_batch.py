"""A model whose configuration has no max_batch_size is built for the batches it is served in."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text, tensor

from penstock.codec import read_config_text
from penstock.engines import batching_of
from penstock.engines.profiles import NetworkInput
from penstock.repository.loader import ModelLoader
from penstock.repository.settings import RepositorySettings

OPEN = [tensor("x"), tensor("ids", dims=(-1, -1))]
Y, FIXED = tensor("y", dims=(-1, 2)), tensor("z", dims=(1, 2))
LISTS_X = """input [{ name: "x" data_type: TYPE_FP32 dims: [ %s ] },
    { name: "ids" data_type: TYPE_FP32 }]"""
LISTS_Y = 'output { name: "y" data_type: TYPE_FP32 }'


@pytest.mark.parametrize(
    ("config", "inputs", "outputs", "largest"),
    [
        ("", OPEN, [Y], 64),
        ("dynamic_batching { preferred_batch_size: 16 }", OPEN, [Y], 64),
        ("", [*OPEN, tensor("scale", dims=(4,))], [Y], 0),
        ("", OPEN, [Y, FIXED], 0),
        (LISTS_Y, OPEN, [Y, FIXED], 64),
        (LISTS_X % "4", OPEN, [Y], 64),
        (LISTS_X % "-1, 4", OPEN, [Y], 0),
        (f"{LISTS_X % '4'} {LISTS_Y}", OPEN, [Y, FIXED], 64),
        ("max_batch_size: 8", OPEN, [Y], 8),
        ("max_batch_size: 0", OPEN, [Y], 0),
    ],
)
def test_batches_are_those_that_the_server_completes(
    tmp_path: Path,
    config: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    largest: int,
) -> None:
    add_model(tmp_path, "m", config=config, signature=signature_text(inputs, outputs))
    loader = ModelLoader(FakeEngine(), RepositorySettings((tmp_path,)))
    assert loader.open_version(loader.plan("m"), 1).config.max_batch_size == largest
    buckets, open_batch = batching_of(read_config_text(config, "config.pbtxt").config, 64)
    if open_batch is not None:
        network = [NetworkInput(each["name"], tuple(each["dims"])) for each in inputs]
        shapes = {each["name"]: tuple(each["dims"]) for each in outputs}
        buckets = open_batch.buckets(network, shapes)
    assert max(buckets, default=0) == largest
    assert "preferred" not in config or buckets == (1, 16, 64)
