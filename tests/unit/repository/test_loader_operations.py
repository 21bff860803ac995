"""What a loader has counted of a version, and what of it is told."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text, tensor
from tests.support.scraped import ENGINE, STATS

from penstock.observe.metrics import Metrics
from penstock.repository.catalog import ModelCatalog, ModelRecord, ServedVersion
from penstock.repository.loader import ModelLoader
from penstock.repository.settings import RepositorySettings

DECLARED = 'parameters { key: "operations_per_inference" value { string_value: "5" } }'


class Counting:
    """Counts three operations of everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, tuple[int, ...]]]] = []
        self.counted = 0
        self.is_closed = False

    def of(
        self, label: str, path: Path, inputs: Mapping[str, tuple[int, ...]]
    ) -> Callable[[], int | None]:
        self.asked.append((label, path.name, dict(inputs)))
        return self.count

    def count(self) -> int:
        self.counted += 1
        return 3

    def close(self) -> None:
        self.is_closed = True


def operations(repository: Path, counting: Counting | None) -> int | None:
    loader = ModelLoader(FakeEngine(), RepositorySettings((repository,), operations=counting))
    served = loader.prepare(loader.plan("m"), 1)
    loader.close()
    return served.operations()


@pytest.fixture
def counting() -> Counting:
    return Counting()


def test_onnx_file_is_counted_as_a_row_sees_it(tmp_path: Path, counting: Counting) -> None:
    inputs = (tensor("x", dims=(-1, 4)), tensor("ids", dims=(-1, -1)))
    add_model(tmp_path, "m", signature=signature_text(inputs))
    assert operations(tmp_path, counting) == 3
    dims = {"x": (1, 4), "ids": (1, -1)}
    assert counting.asked == [("model 'm' version 1", "model.onnx", dims)]
    assert counting.is_closed


def test_dims_are_those_of_the_file_and_of_a_whole_request(
    tmp_path: Path, counting: Counting
) -> None:
    config = """
        max_batch_size: 0
        input { name: "x" data_type: TYPE_FP32 dims: [ 6 ] reshape { shape: [ 2, 3 ] } }
        output { name: "y" data_type: TYPE_FP32 dims: [ 2, 2 ] }
    """
    signature = signature_text((tensor("x", dims=(2, 3)),), (tensor("y", dims=(2, 2)),))
    add_model(tmp_path, "m", config=config, signature=signature)
    assert operations(tmp_path, counting) == 3
    assert counting.asked[0][2] == {"x": (2, 3)}


def test_what_the_configuration_says_is_not_counted(tmp_path: Path, counting: Counting) -> None:
    add_model(tmp_path, "m", config=DECLARED)
    assert operations(tmp_path, counting) == 5
    assert counting.asked == []


def test_other_formats_are_not_counted(tmp_path: Path, counting: Counting) -> None:
    add_model(tmp_path, "m", config='backend: "fixture" default_model_filename: "model.txt"')
    version = tmp_path / "m" / "1"
    (version / "model.onnx").rename(version / "model.txt")
    assert operations(tmp_path, counting) is None
    assert counting.asked == []


@pytest.mark.parametrize("config", [None, DECLARED])
def test_without_counting_only_the_configuration_tells(tmp_path: Path, config: str | None) -> None:
    add_model(tmp_path, "m", config=config)
    assert operations(tmp_path, None) == (5 if config else None)


class OneModel(ModelCatalog):
    """Serves a version of "m"."""

    def __init__(self, served: ServedVersion) -> None:
        super().__init__()
        self._models["m"] = ModelRecord({served.version: served})


def test_statistics_have_nothing_counted_and_a_scrape_does(
    tmp_path: Path, counting: Counting
) -> None:
    add_model(tmp_path, "m")
    loader = ModelLoader(FakeEngine(), RepositorySettings((tmp_path,), operations=counting))
    catalog = OneModel(loader.prepare(loader.plan("m"), 1))
    versions = [replace(each, counters=STATS) for each in catalog.statistics()]
    catalog.statistics("m", "1")
    assert counting.counted == 0
    metrics = Metrics(versions=lambda: versions, engine=lambda: ENGINE, is_ready=lambda: True)
    _, text = metrics.render()
    assert b'\npenstock_model_operations_per_inference{model="m",version="1"} 3\n' in text
    assert counting.counted == 1
