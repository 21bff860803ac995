"""What is said of the GPUs that a model leaves open: too few, too many, and why it is on them."""

from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text
from tests.support.fake_gpus import FakeGpus

from penstock.codec import read_config_text
from penstock.errors import ConfigError, CoreError, NotFoundError
from penstock.repository.completion import with_names
from penstock.repository.loader import ModelLoader
from penstock.repository.seen_gpus import on_seen_gpus, telling_of_gpus
from penstock.repository.settings import RepositorySettings


def parameters(**values: int) -> str:
    entry = 'parameters {{ key: "{}" value {{ string_value: "{}" }} }} '
    return "".join(entry.format(key, value) for key, value in values.items())


FOUR_TO_EIGHT = parameters(instances_min=4, instances_max=8)
OUTSIDE = (
    "config.pbtxt: parameters['instances_max']: expected instances_min <= instance_group.count, "
    "on all of its gpus together, <= instances_max, got "
)


def loader(tmp_path: Path, config: str, seen: int, engine: FakeEngine) -> ModelLoader:
    directory = add_model(tmp_path, "m", config=f'backend: "tensorrt" {config}')
    (directory / "1" / "model.plan").write_text(signature_text())
    return ModelLoader(engine, RepositorySettings((tmp_path,), gpus=FakeGpus(seen)))


@pytest.mark.parametrize(
    ("config", "seen", "got"),
    [
        (FOUR_TO_EIGHT, 4, None),
        ("instance_group { count: 2 } " + FOUR_TO_EIGHT, 2, None),
        (FOUR_TO_EIGHT, 1, "4, 1, 8"),
        (FOUR_TO_EIGHT, 3, "4, 3, 8 (it names no gpus: all 3 that are seen are used)"),
        (FOUR_TO_EIGHT, 0, None),  # nothing runs there: its backend says why
    ],
)
def test_least_instances_are_of_the_gpus_that_are_seen(
    tmp_path: Path, config: str, seen: int, got: str | None
) -> None:
    engine = FakeEngine()
    made = loader(tmp_path, config, seen, engine)
    plan = made.plan("m")
    if got is None:
        made.prepare(plan, 1)
        return
    with pytest.raises(ConfigError) as caught:
        made.prepare(plan, 1)
    assert caught.value.faults == (OUTSIDE + got,)
    assert engine.opened == []


@pytest.mark.parametrize(
    ("config", "got"),
    [
        ("instance_group { count: 9 } " + FOUR_TO_EIGHT, "4, 9, 8"),
        (parameters(instances_min=8, instances_max=4), "8, 1, 4"),
        ("instance_group { gpus: [0] } " + FOUR_TO_EIGHT, "4, 1, 8"),
    ],
)
def test_what_no_gpu_makes_right_is_a_fault_of_the_configuration(
    tmp_path: Path, config: str, got: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loader(tmp_path, config, 4, FakeEngine()).plan("m")
    assert caught.value.faults == (OUTSIDE + got,)


def test_instances_on_all_that_are_seen_are_no_more_than_there_may_be(tmp_path: Path) -> None:
    made = loader(tmp_path, "instance_group { count: 600 }", 2, FakeEngine())
    with pytest.raises(ConfigError, match="1200 instances are more than 1024"):
        made.prepare(made.plan("m"), 1)


@pytest.mark.parametrize(
    ("config", "seen", "used"),
    [
        (parameters(instances_max=2), 3, "the first 2"),
        (parameters(instances_max=2), 2, "all 2"),
        ("instance_group [{}, { gpus: [0, 1, 2] }]", 2, "all 2"),
    ],
)
def test_failure_says_how_many_of_the_gpus_a_model_was_put_on(
    config: str, seen: int, used: str
) -> None:
    written = with_names(read_config_text(config, "config.pbtxt").config, "m", "tensorrt")
    _, why = on_seen_gpus(written, FakeGpus(seen), "config.pbtxt")
    with pytest.raises(CoreError) as caught, telling_of_gpus(why):
        raise NotFoundError("GPU 1 is away")
    said = f"GPU 1 is away (it names no gpus: {used} that are seen are used)"
    assert caught.value.message == said
