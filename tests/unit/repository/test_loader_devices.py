"""Which devices a configuration puts a model on, and what its backend is told of them."""

from pathlib import Path

import pytest
from tests.support.fake_engine import FakeEngine, add_model, signature_text
from tests.support.fake_gpus import FakeGpus
from tests.support.fake_plans import FakePlans

from penstock.codec import read_config_text
from penstock.errors import ConfigError, ResourceExhaustedError, UnavailableError
from penstock.repository.completion import with_names
from penstock.repository.loader import ModelLoader
from penstock.repository.serving import backend_parameters
from penstock.repository.settings import RepositorySettings


def loader(engine: FakeEngine, *paths: Path) -> ModelLoader:
    return ModelLoader(engine, RepositorySettings(paths))


def plan_faults(tmp_path: Path, config: str) -> list[str]:
    add_model(tmp_path, "m", config=config)
    with pytest.raises(ConfigError) as caught:
        loader(FakeEngine(), tmp_path).plan("m")
    return list(caught.value.faults)


def _plan_of_tensorrt(tmp_path: Path, config: str) -> None:
    directory = tmp_path / "m" / "1"
    directory.mkdir(parents=True)
    (directory / "model.plan").write_text(signature_text())
    (tmp_path / "m" / "config.pbtxt").write_text(config)


@pytest.mark.parametrize(
    ("backend", "group", "fault"),
    [
        ("openvino", "kind: KIND_GPU", "instance_group[0].kind: KIND_GPU is not supported by"),
        ("onnxruntime", "kind: KIND_CPU gpus: [0]", "instance_group[0].gpus: expected none with"),
        ("onnxruntime", "kind: KIND_MODEL gpus: [0]", "instance_group[0].gpus: expected none with"),
        ("openvino", "gpus: [0]", "instance_group[0].gpus: backend 'openvino' runs on no GPUs"),
        ("tensorrt", "kind: KIND_CPU", "instance_group[0].kind: KIND_CPU is not supported by"),
        ("tensorrt", "gpus: [0, 0]", "instance_group[0].gpus: expected numbers of devices, each"),
        ("tensorrt", "gpus: [-1]", "instance_group[0].gpus: expected numbers of devices, each"),
    ],
)
def test_device_that_the_backend_does_not_run_on_is_a_fault(
    tmp_path: Path, backend: str, group: str, fault: str
) -> None:
    config = f'backend: "{backend}" instance_group {{ {group} }}'
    (found,) = plan_faults(tmp_path, config)
    assert found.startswith(f"config.pbtxt: {fault}")


ACCELERATED = """backend: "onnxruntime" optimization { execution_accelerators {
    gpu_execution_accelerator [
        { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } },
        { name: "cuda" parameters { key: "use_tf32" value: "0" } }] } }"""


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (ACCELERATED, "needs an instance_group of KIND_GPU"),
        (
            ACCELERATED.replace("onnxruntime", "openvino"),
            "gpu_execution_accelerator: not supported by backend 'openvino'",
        ),
        (
            ACCELERATED.replace('"tensorrt"', '"auto"') + "instance_group { kind: KIND_GPU }",
            "gpu_execution_accelerator[0].name: expected 'tensorrt' or 'cuda', got 'auto'",
        ),
        (
            ACCELERATED.replace('"tensorrt"', '"cuda"') + "instance_group { kind: KIND_GPU }",
            "gpu_execution_accelerator[1].name: 'cuda' is listed twice",
        ),
        (
            'backend: "onnxruntime" instance_group [{ kind: KIND_GPU }, { kind: KIND_CPU }]',
            "groups of one model are all of KIND_CPU or all of KIND_GPU",
        ),
    ],
)
def test_accelerator_that_cannot_be_is_a_fault(tmp_path: Path, config: str, fault: str) -> None:
    (found,) = plan_faults(tmp_path, config)
    assert fault in found


def _opened_parameters(tmp_path: Path, config: str) -> dict[str, str]:
    add_model(tmp_path, "m", config=config)
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.open_version(made.plan("m"), 1)
    return dict(engine.opened[-1].parameters)


def test_gpu_of_onnxruntime_reaches_the_backend_with_rows_and_accelerators(tmp_path: Path) -> None:
    group = "instance_group { kind: KIND_GPU gpus: [1] }"
    assert _opened_parameters(tmp_path, f"{ACCELERATED} {group} max_batch_size: 8") == {
        "device_kind": "gpu",
        "device": "1",
        "max_batch_size": "8",
        "dynamic_batching": "0",
        "accelerators": "tensorrt,cuda",
        "tensorrt.precision_mode": "FP16",
        "cuda.use_tf32": "0",
    }


@pytest.mark.parametrize(
    ("group", "parameters"),
    [
        ("", {}),
        ("instance_group { kind: KIND_AUTO }", {}),
        ("instance_group { kind: KIND_CPU }", {}),
        (
            "instance_group { gpus: [0] }",
            {
                "device_kind": "gpu",
                "device": "0",
                "max_batch_size": "64",
                "dynamic_batching": "1",
            },
        ),
        (
            "instance_group { kind: KIND_GPU }",
            {"device_kind": "gpu", "max_batch_size": "64", "dynamic_batching": "1"},
        ),
    ],
)
def test_onnxruntime_runs_on_a_gpu_only_where_it_is_told(
    tmp_path: Path, group: str, parameters: dict[str, str]
) -> None:
    assert _opened_parameters(tmp_path, f'backend: "onnxruntime" {group}') == parameters


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        ("", "1"),
        ("max_batch_size: 8", "0"),
        ("max_batch_size: 8 dynamic_batching {}", "1"),
        ("max_batch_size: 0", "0"),
        # The file's shapes in full, for all that is known before it is read: these do not batch.
        ('input { name: "x" dims: [-1, 4] }', "0"),
        ('max_batch_size: 8 dynamic_batching {} input { name: "x" dims: 4 }', "1"),
    ],
)
def test_gpu_of_onnxruntime_is_told_whether_requests_share_batches(
    tmp_path: Path, config: str, shares: str
) -> None:
    group = "instance_group { kind: KIND_GPU }"
    parameters = _opened_parameters(tmp_path, f'backend: "onnxruntime" {group} {config}')
    assert parameters["dynamic_batching"] == shares


def test_instances_for_each_device_and_its_number_reach_the_backend(tmp_path: Path) -> None:
    groups = "[{ count: 2 gpus: [1, 0] }, { count: 1 gpus: [1] }]"
    config = f'backend: "tensorrt" instance_group {groups}'
    _plan_of_tensorrt(tmp_path, config)
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    served = made.prepare(made.plan("m"), 1)
    assert engine.opened[-1].parameters["device"] == "0,1"
    assert engine.created[0].spec.instance_count == 5
    assert [group.kind for group in served.config.instance_groups] == ["KIND_GPU"] * 2


def at_most(instances: int) -> str:
    return f'parameters {{ key: "instances_max" value {{ string_value: "{instances}" }} }}'


WARMUP = """model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {
    data_type: TYPE_FP32 dims: 4 zero_data: true } } }"""
NAMED = 'parameters { key: "device" value { string_value: "MIG-5a" } }'


@pytest.mark.parametrize(
    ("config", "seen", "device", "instances"),
    [
        ("", 2, "0,1", 8),  # as many as there may be batches under way on each
        ("instance_group { kind: KIND_GPU count: 3 }", 2, "0,1", 6),
        ("instance_group [{ count: 2 }, { count: 1 gpus: [1] }]", 3, "0,1,2", 7),
        ("instance_group { gpus: [1] count: 2 }", 4, "1", 2),
        (f"instance_group {{ count: 2 }} {NAMED}", 4, "MIG-5a", 2),
        (at_most(8), 4, "0,1,2,3", 4),
        (at_most(2), 4, "0,1", 2),
        (f"instance_group {{ count: 2 }} {at_most(7)}", 4, "0,1,2", 6),
        (f"instance_group {{ count: 2 }} {at_most(2)}", 4, None, 2),
        ("instance_group { count: 2 }", 1, None, 2),
        ("instance_group { count: 2 }", 0, None, 2),
    ],
)
def test_group_that_names_no_gpu_has_its_instances_on_each(
    tmp_path: Path, config: str, seen: int, device: str | None, instances: int
) -> None:
    _plan_of_tensorrt(tmp_path, f'backend: "tensorrt" {config}')
    engine = FakeEngine()
    made = ModelLoader(engine, RepositorySettings((tmp_path,), gpus=FakeGpus(seen)))
    made.prepare(made.plan("m"), 1)
    assert engine.opened[-1].parameters.get("device") == device
    assert engine.created[0].spec.instance_count == instances


@pytest.mark.parametrize("config", ["", "instance_group { kind: KIND_CPU }"])
def test_gpus_are_not_counted_for_models_on_cpus(tmp_path: Path, config: str) -> None:
    """A driver may take long to start."""
    add_model(tmp_path, "m", config=f'backend: "onnxruntime" {config}')
    gpus = FakeGpus(2)
    made = ModelLoader(FakeEngine(), RepositorySettings((tmp_path,), gpus=gpus))
    made.prepare(made.plan("m"), 1)
    assert gpus.asked == 0


def test_gpus_are_counted_when_a_version_is_opened_not_when_its_configuration_is_read(
    tmp_path: Path,
) -> None:
    _plan_of_tensorrt(tmp_path, 'backend: "tensorrt"')
    gpus = FakeGpus(2)
    made = ModelLoader(FakeEngine(), RepositorySettings((tmp_path,), gpus=gpus))
    plan = made.plan("m")
    assert (gpus.asked, plan.config.instance_groups[0].gpus) == (0, ())
    served = made.prepare(plan, 1)
    assert (gpus.asked, served.config.instance_groups[0].gpus) == (1, (0, 1))
    made.check_version(plan, 1)
    assert gpus.asked == 2
    made.close()
    assert gpus.is_closed


def test_gpus_that_nobody_knows_fail_the_load_with_the_reason(tmp_path: Path) -> None:
    _plan_of_tensorrt(tmp_path, 'backend: "tensorrt"')
    engine = FakeEngine()
    gpus = FakeGpus(UnavailableError("the driver does not say within 60 s"))
    made = ModelLoader(engine, RepositorySettings((tmp_path,), gpus=gpus))
    with pytest.raises(UnavailableError, match=r"^the driver does not say within 60 s$"):
        made.prepare(made.plan("m"), 1)
    assert engine.opened == []


@pytest.mark.parametrize("step", ["open", "create", "warm_up"])
@pytest.mark.parametrize(
    ("config", "seen", "why"),
    [
        ("", 2, " (it names no gpus: all 2 that are seen are used)"),
        (at_most(2), 4, " (it names no gpus: the first 2 that are seen are used)"),
        ("", 1, ""),
        ("instance_group { gpus: [0, 1] }", 2, ""),
    ],
)
def test_failure_on_gpus_that_a_model_did_not_name_says_why_it_is_there(
    tmp_path: Path, step: str, config: str, seen: int, why: str
) -> None:
    _plan_of_tensorrt(tmp_path, f'backend: "tensorrt" {config} {WARMUP}')
    engine = FakeEngine()
    engine.fail[step, "m"] = ResourceExhaustedError("GPU 1 has no memory", 7)
    made = ModelLoader(engine, RepositorySettings((tmp_path,), gpus=FakeGpus(seen)))
    with pytest.raises(ResourceExhaustedError) as caught:
        made.prepare(made.plan("m"), 1)
    assert caught.value.message.endswith(f"GPU 1 has no memory{why}")
    if step != "warm_up":
        assert caught.value.retry_after_ms == 7


def test_onnx_that_a_gpu_cannot_run_says_why_it_was_asked(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "m", config='platform: "tensorrt_plan"')
    engine = FakeEngine()
    engine.fail["ask", "m"] = UnavailableError("GPU 1 is away")
    settings = RepositorySettings(
        (tmp_path / "models",), plans=FakePlans(tmp_path / "cache"), gpus=FakeGpus(2)
    )
    made = ModelLoader(engine, settings)
    why = r"^GPU 1 is away \(it names no gpus: all 2 that are seen are used\)$"
    with pytest.raises(UnavailableError, match=why):
        made.prepare(made.plan("m"), 1)


@pytest.mark.parametrize("is_built", [True, False], ids=["at load", "ahead"])
def test_plan_of_a_configuration_without_a_batch_size_is_served_in_batches_that_it_holds(
    tmp_path: Path, is_built: bool
) -> None:
    signature = signature_text(most_rows=8)
    directory = add_model(tmp_path / "models", "m", config='platform: "tensorrt_plan"')
    if not is_built:
        (directory / "1" / "model.plan").write_text(signature)
    plans = FakePlans(tmp_path / "cache", signature=signature)
    engine = FakeEngine()
    made = ModelLoader(engine, RepositorySettings((tmp_path / "models",), plans=plans))
    made.prepare(made.plan("m"), 1)
    assert engine.created[0].spec.max_batch_size == 8
    assert len(plans.asked) == is_built


@pytest.mark.parametrize(("said", "told"), [("max_batch_size: 0", "0"), ("max_batch_size: 8", "8")])
def test_whether_a_plan_has_rows_is_the_configurations_to_say(
    tmp_path: Path, said: str, told: str
) -> None:
    _plan_of_tensorrt(tmp_path, f'backend: "tensorrt" {said}')
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.prepare(made.plan("m"), 1)
    assert engine.opened[-1].parameters["max_batch_size"] == told


LISTED = """input { name: "x" dims: [-1, 4] }
    output { name: "y" dims: [1, -1, 2] reshape { shape: [-1, 2] } } output { name: "z" }"""


@pytest.mark.parametrize(
    ("config", "ranks"),
    [
        (LISTED, {"listed_rank:x": "2", "listed_rank:y": "2"}),
        (f"max_batch_size: 8 {LISTED}", {}),
        ("", {}),
    ],
)
@pytest.mark.parametrize("group", ["", "instance_group { kind: KIND_GPU }"])
def test_how_many_dims_are_listed_without_a_batch_size_reaches_what_lays_shapes_out(
    group: str, config: str, ranks: dict[str, str]
) -> None:
    """Whether that is the file's shape in full, which has no rows, is known to the backend."""
    backend = "onnxruntime" if group else "tensorrt"
    written = read_config_text(f"{group} {config}", "config.pbtxt").config
    parameters = backend_parameters(with_names(written, "m", backend))
    assert {k: v for k, v in parameters.items() if k.startswith("listed_rank")} == ranks


def test_devices_of_a_group_that_leaves_its_kind_to_the_model_reach_tensorrt(
    tmp_path: Path,
) -> None:
    _plan_of_tensorrt(tmp_path, 'backend: "tensorrt" instance_group { kind: KIND_MODEL gpus: [1] }')
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.prepare(made.plan("m"), 1)
    assert engine.opened[-1].parameters["device"] == "1"


def test_device_named_by_a_parameter_is_kept(tmp_path: Path) -> None:
    config = """backend: "tensorrt" instance_group { gpus: [0] }
    parameters { key: "device" value { string_value: "MIG-5a" } }"""
    _plan_of_tensorrt(tmp_path, config)
    engine = FakeEngine()
    made = loader(engine, tmp_path)
    made.prepare(made.plan("m"), 1)
    assert engine.opened[-1].parameters["device"] == "MIG-5a"
