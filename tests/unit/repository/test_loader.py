"""From a directory to what the engine is told."""

from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text, tensor
from tests.support.fake_plans import AskedPlan, FakePlans

from penstock.codec import read_config_text
from penstock.errors import ConfigError, InternalError
from penstock.repository.engine import LevelQueue, ServingSpec
from penstock.repository.layout import model_file
from penstock.repository.loader import ModelLoader
from penstock.repository.serving import backend_parameters
from penstock.repository.settings import RepositorySettings


def loader(engine: FakeEngine, *paths: Path, backends: tuple[Path, ...] = ()) -> ModelLoader:
    return ModelLoader(engine, RepositorySettings(paths, backend_directories=backends))


def spec_of(tmp_path: Path, config: str, signature: str | None = None) -> ServingSpec:
    add_model(tmp_path, "m", config=config, signature=signature)
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.prepare(made.plan("m"), 1)
    (version,) = engine.created
    return version.spec


def plan_faults(tmp_path: Path, config: str, config_json: str | None = None) -> list[str]:
    add_model(tmp_path, "m", config=config)
    with pytest.raises(ConfigError) as caught:
        loader(FakeEngine(), tmp_path).plan("m", config_json)
    return list(caught.value.faults)


def test_defaults_reach_the_engine(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    spec = spec_of(tmp_path / "other", "")
    assert (spec.model_name, spec.version, spec.max_batch_size) == ("m", 1, 64)
    assert (spec.dynamic_batching, spec.max_queue_delay_us, spec.instance_count) == (True, 0, 1)
    assert spec.queues == (LevelQueue(),)
    assert [(t.name, t.datatype, t.dims) for t in spec.inputs] == [("x", "FP32", (4,))]
    assert [(t.name, t.datatype, t.dims) for t in spec.outputs] == [("y", "FP32", (2,))]


def test_batching_without_dynamic_batching_is_off(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "max_batch_size: 8").dynamic_batching is False


def test_batching_settings_reach_the_engine(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        """max_batch_size: 8 instance_group [{ count: 2 }, { count: 3 kind: KIND_CPU }]
        dynamic_batching { preferred_batch_size: [2, 4] max_queue_delay_microseconds: 50
          priority_levels: 3 default_priority_level: 2
          default_queue_policy { max_queue_size: 7 default_timeout_microseconds: 9 }
          priority_queue_policy { key: 3 value { timeout_action: DELAY
            allow_timeout_override: true } } }""",
    )
    assert spec.preferred_batch_sizes == (2, 4)
    assert (spec.max_queue_delay_us, spec.preserve_ordering) == (50, False)
    assert (spec.default_priority_level, spec.instance_count) == (2, 5)
    default = LevelQueue(7, 9, delay_on_timeout=False, honour_request_timeout=False)
    third = LevelQueue(0, 0, delay_on_timeout=True, honour_request_timeout=True)
    assert spec.queues == (default, default, third)


def test_order_that_is_to_be_preserved_reaches_the_engine(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "max_batch_size: 8 dynamic_batching { preserve_ordering: true }")
    assert spec.preserve_ordering is True


def test_labels_and_reshape_reach_the_engine(tmp_path: Path) -> None:
    path = add_model(
        tmp_path,
        "m",
        config="""max_batch_size: 2 input { name: "x" dims: [2, 2] reshape { shape: [4] } }
        output { name: "y" label_filename: "labels.txt" }""",
    )
    (path / "labels.txt").write_text("cat\r\ndog\u2028\n")
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    served = made.prepare(made.plan("m"), 1)
    spec = engine.created[0].spec
    assert spec.outputs[0].labels == ("cat", "dog\u2028")
    assert (spec.inputs[0].dims, spec.inputs[0].reshape) == ((2, 2), (4,))
    assert served.inputs[0].shape == (-1, 2, 2)


def test_source_of_a_version(tmp_path: Path) -> None:
    path = add_model(
        tmp_path,
        "m",
        versions=(3,),
        config="""backend: "onnxruntime" optimization { graph { level: -1 } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }""",
    )
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.open_version(made.plan("m"), 3)
    (source,) = engine.opened
    assert (source.backend, source.model_name, source.version) == ("onnxruntime", "m", 3)
    assert source.path == str(path / "3" / "model.onnx")
    assert source.model_directory == str(path)
    assert source.parameters == {"graph_optimization_level": "-1", "intra_op_thread_count": "2"}


def test_backend_of_a_plugin_gets_the_version_directory(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", config='backend: "fixture"')
    (path / "1" / "model.json").write_text(signature_text())
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.open_version(made.plan("m"), 1)
    assert (engine.opened[0].backend, engine.opened[0].path) == ("fixture", str(path / "1"))


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (
            'platform: "tensorflow_graphdef"',
            "platform: 'tensorflow_graphdef' is not supported, expected one",
        ),
        ('backend: "openvino"', "backend: there is no backend 'openvino', expected one of fixtu"),
        ('backend: "../../x"', "backend: '../../x' is not a name of letters, digits and _"),
        (
            'backend: "fixture" platform: "onnxruntime_onnx"',
            "backend: 'fixture' does not serve platform 'onnxruntime_onnx', expected 'onnxruntime'",
        ),
    ],
)
def test_backends_that_are_not_there(tmp_path: Path, config: str, fault: str) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("libpenstock_onnxruntime.so", "libpenstock_fixture.so", "other.so"):
        (plugins / name).touch()
    add_model(tmp_path / "models", "m", config=config)
    made = loader(FakeEngine(), tmp_path / "models", backends=(plugins, tmp_path / "gone"))
    with pytest.raises(ConfigError) as caught:
        made.plan("m")
    assert caught.value.faults[0].startswith(f"config.pbtxt: {fault}")


def test_nothing_tells_the_backend(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="backend: none is named and no version holds a model"):
        loader(FakeEngine(), tmp_path).plan("m")


def test_other_filename_tells_the_backend(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", config='default_model_filename: "net.onnx"')
    (path / "1" / "model.onnx").rename(path / "1" / "net.onnx")
    made = loader(FakeEngine(), tmp_path)
    assert made.plan("m").config.backend == "onnxruntime"
    assert made.open_version(made.plan("m"), 1)[1].max_batch_size == 64


@pytest.mark.parametrize("filename", ["net.xml", "net.pb", "net.tflite", "net.pdmodel"])
def test_filename_of_another_format_tells_its_backend(tmp_path: Path, filename: str) -> None:
    path = add_model(tmp_path, "m", config=f'default_model_filename: "{filename}"')
    (path / "1" / "model.onnx").rename(path / "1" / filename)
    plan = loader(FakeEngine(), tmp_path).plan("m")
    assert (plan.config.backend, plan.config.platform) == ("openvino", "openvino")


def test_saved_model_is_given_as_its_directory(tmp_path: Path) -> None:
    path = add_model(tmp_path, "m", config='default_model_filename: "net.saved_model"')
    folder = path / "1" / "net.saved_model"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    made = loader(FakeEngine(), tmp_path)
    assert made.plan("m").config.backend == "openvino"
    assert model_file(made.plan("m").model, 1, "net.saved_model") == folder


def test_all_faults_of_a_plan_come_together(tmp_path: Path) -> None:
    faults = plan_faults(
        tmp_path,
        """name: "x" platform: "caffe2_netdef" sequence_batching {}
        version_policy { specific { versions: 9 } }
        output { name: "y" label_filename: "gone.txt" }""",
    )
    assert [fault.split(":")[1].strip() for fault in faults] == [
        "field 'sequence_batching' is not supported",
        "name",
        "platform",
        "version_policy.specific.versions",
        "output[0].label_filename",
    ]


def test_faults_against_the_file_name_the_configuration(tmp_path: Path) -> None:
    add_model(tmp_path, "m", config='max_batch_size: 2 output { name: "z" }')
    made = loader(FakeEngine(), tmp_path)
    with pytest.raises(ConfigError) as caught:
        made.open_version(made.plan("m"), 1)
    (fault,) = caught.value.faults
    assert fault == "config.pbtxt: output[0].name: the model file has no output 'z', it has 'y'"


@pytest.mark.parametrize(
    ("config", "override", "fault"),
    [
        ("", '{"backend": "python"}', "backend: a load request may not change the backend, exp"),
        (
            "",
            '{"platform": "tensorrt_plan"}',
            "backend: a load request may not change the backend, expected 'onnxruntime', got",
        ),
        (
            "",
            '{"default_model_filename": "other.onnx"}',
            "default_model_filename: a load request may not change the model file, expected "
            "'model.onnx', got 'other.onnx'",
        ),
        (
            'backend: "python"',
            '{"parameters": {"EXECUTION_ENV_PATH": {"string_value": "/x"}}}',
            "parameters: a load request may not change the parameters of a model of backend 'pyt",
        ),
        (
            "",
            '{"model_operations": {"op_library_filename": ["x.so"]}}',
            "field 'model_operations' is not supported",
        ),
        ("", '{"name": "x"}', "name: expected the name of the directory, 'm', got 'x'"),
    ],
)
def test_override_may_not_decide_what_runs(
    tmp_path: Path, config: str, override: str, fault: str
) -> None:
    (found,) = plan_faults(tmp_path, config, override)
    assert found.startswith(f"config parameter: {fault}")


@pytest.mark.parametrize("override", ["", "[]", "{", '{"nope": 1}', '{"input": 3}', "[" * 99999])
def test_override_that_is_no_configuration(tmp_path: Path, override: str) -> None:
    (found,) = plan_faults(tmp_path, "", override)
    assert found.startswith("config parameter: ")


def test_override_replaces_the_whole_configuration(tmp_path: Path) -> None:
    add_model(tmp_path, "m", config="max_batch_size: 8 instance_group { count: 3 }")
    made = loader(FakeEngine(), tmp_path)
    override = """{"name": "m", "platform": "onnxruntime_onnx", "maxBatchSize": 4,
      "parameters": {"intra_op_thread_count": {"string_value": "1"}}}"""
    config = made.plan("m", override).config
    assert (config.max_batch_size, config.instance_groups[0].count) == (4, 1)
    assert config.parameters == {"intra_op_thread_count": "1"}


def test_directory_that_vanishes_is_told_without_its_path(tmp_path: Path) -> None:
    add_model(tmp_path, "m")
    made = loader(FakeEngine(), tmp_path / "gone")
    with pytest.raises(InternalError) as caught:
        made.plan("m")
    assert str(tmp_path) not in str(caught.value)


def test_optional_input_reaches_the_engine(tmp_path: Path) -> None:
    inputs = [tensor("x"), {**tensor("o", "BYTES", (-1, 1)), "optional": True}]
    config = 'input { name: "x" } input { name: "o" optional: true }'
    spec = spec_of(tmp_path, config, signature_text(inputs))
    assert [(t.name, t.optional) for t in spec.inputs] == [("x", False), ("o", True)]


def test_missing_version_of_a_policy_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_model(tmp_path, "m", config="version_policy { specific { versions: [1, 7] } }")
    assert loader(FakeEngine(), tmp_path).plan("m").versions == (1,)
    assert "model 'm': config.pbtxt names version 7, not found" in caplog.text


def test_input_without_dims_keeps_the_shape_of_its_file_when_others_are_reshaped() -> None:
    config = read_config_text(
        """backend: "openvino" max_batch_size: 8
        input [{ name: "x" data_type: TYPE_FP32 }, { name: "y" data_type: TYPE_FP32 dims: [4] }]
        parameters { key: "RESHAPE_IO_LAYERS" value { string_value: "yes" } }""",
        "config.pbtxt",
    ).config
    parameters = backend_parameters(config)
    assert parameters == {"RESHAPE_IO_LAYERS": "yes", "RESHAPE_IO_LAYERS:y": "-1,4"}


def _onnx_for_tensorrt(tmp_path: Path, config: str) -> None:
    add_model(tmp_path, "m", config=config)
    version = tmp_path / "m" / "1"
    for path in version.iterdir():
        path.unlink()
    (version / "model.onnx").write_bytes(b"onnx")


DEVICE_BY_UUID = """backend: "tensorrt"
    parameters { key: "device" value { string_value: "MIG-5a" } }"""


@pytest.mark.parametrize(
    ("config", "device"),
    [
        ('platform: "tensorrt_plan"', "0"),
        ('backend: "tensorrt"', "0"),
        ('backend: "tensorrt" default_model_filename: "model.onnx"', "0"),
        ('backend: "tensorrt" instance_group [{ gpus: [3, 2] }]', "2"),
        (DEVICE_BY_UUID, "MIG-5a"),
    ],
)
def test_onnx_for_tensorrt_is_opened_as_the_plan_that_is_made_of_it_for_its_device(
    tmp_path: Path, config: str, device: str
) -> None:
    _onnx_for_tensorrt(tmp_path, f"{config} max_batch_size: 8")
    plans = FakePlans(tmp_path / "cache")
    engine = FakeEngine()
    made = ModelLoader(engine, RepositorySettings((tmp_path,), plans=plans))
    made.open_version(made.plan("m"), 1)
    assert plans.asked == [AskedPlan("model.onnx", "model 'm' version 1", 8, device, 8)]
    assert engine.opened[-1].path == str(plans.path)
    made.close()
    assert plans.is_closed


def test_version_that_serves_a_built_plan_has_it_in_use(tmp_path: Path) -> None:
    _onnx_for_tensorrt(tmp_path, 'backend: "tensorrt"')
    plans = FakePlans(tmp_path / "cache")
    made = ModelLoader(FakeEngine(), RepositorySettings((tmp_path,), plans=plans))
    built = made.prepare(made.plan("m"), 1).built
    assert built is not None
    assert built.path == plans.path


def test_plan_beside_the_onnx_is_what_is_served(tmp_path: Path) -> None:
    _onnx_for_tensorrt(tmp_path, 'backend: "tensorrt"')
    (tmp_path / "m" / "1" / "model.plan").write_text(signature_text())
    plans = FakePlans(tmp_path / "cache")
    engine = FakeEngine()
    made = ModelLoader(engine, RepositorySettings((tmp_path,), plans=plans))
    made.open_version(made.plan("m"), 1)
    assert (plans.asked, Path(engine.opened[-1].path).name) == ([], "model.plan")


def test_onnx_for_tensorrt_is_refused_where_no_engines_are_built(tmp_path: Path) -> None:
    _onnx_for_tensorrt(tmp_path, 'backend: "tensorrt"')
    made = loader(FakeEngine(), tmp_path)
    with pytest.raises(ConfigError, match="version 1 is ONNX, and no engines are built here"):
        made.open_version(made.plan("m"), 1)
