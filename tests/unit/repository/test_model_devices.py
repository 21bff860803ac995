"""Which GPUs a model runs on, each in a worker process, as its configuration says."""

from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model

from penstock.errors import ConfigError
from penstock.repository.loader import ModelLoader
from penstock.repository.settings import RepositorySettings

OTHERS = 'backend: "others" default_model_filename: "model.onnx" '
DEVICE = 'parameters {{ key: "device" value {{ string_value: "{}" }} }}'


def opened_on(tmp_path: Path, config: str) -> tuple[str, ...]:
    add_model(tmp_path, "m", config=config)
    engine = FakeEngine()
    loader = ModelLoader(engine, RepositorySettings((tmp_path,)))
    loader.prepare(loader.plan("m"), 1)
    return engine.opened[0].devices


@pytest.mark.parametrize(
    ("config", "devices"),
    [
        ("", ()),
        ('backend: "onnxruntime"', ()),
        ('backend: "onnxruntime" instance_group { kind: KIND_CPU }', ()),
        ('backend: "onnxruntime" instance_group { kind: KIND_GPU }', ("0",)),
        ('backend: "onnxruntime" instance_group { gpus: [2, 1] }', ("1", "2")),
        (
            OTHERS + "instance_group { kind: KIND_GPU gpus: [3] }",
            ("3",),
        ),
        (
            OTHERS + "instance_group { gpus: [3] }",
            ("3",),
        ),
        (OTHERS, ()),
        (
            'backend: "onnxruntime" instance_group { kind: KIND_GPU gpus: [0] } '
            + DEVICE.format("GPU-5a1c, MIG-77"),
            ("GPU-5a1c", "MIG-77"),
        ),
        ('backend: "onnxruntime" ' + DEVICE.format("1"), ()),
    ],
)
def test_devices_are_those_of_the_configuration(
    tmp_path: Path, config: str, devices: tuple[str, ...]
) -> None:
    assert opened_on(tmp_path, config) == devices


@pytest.mark.parametrize("backend", ["openvino", "python"])
def test_backend_that_runs_on_no_gpu_is_refused_one(tmp_path: Path, backend: str) -> None:
    with pytest.raises(ConfigError, match="KIND_GPU is not supported by backend"):
        opened_on(tmp_path, f'backend: "{backend}" instance_group {{ kind: KIND_GPU }}')


def test_groups_of_a_plug_in_of_others_are_of_one_kind(tmp_path: Path) -> None:
    config = OTHERS + "instance_group { kind: KIND_GPU } instance_group { kind: KIND_CPU }"
    with pytest.raises(ConfigError, match="all of KIND_CPU or all of KIND_GPU"):
        opened_on(tmp_path, config)
