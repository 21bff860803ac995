"""Plans that are made of ONNX models: in use until their version is freed, and no longer."""

from pathlib import Path

import pytest
from tests.support.budgets import until_unloaded
from tests.support.fake_engine import FakeEngine, add_model, signature_text
from tests.support.fake_plans import FakePlans

from penstock.errors import FailedPreconditionError, InvalidArgumentError
from penstock.repository import ModelManager, RepositorySettings
from penstock.repository.loader import ModelLoader


@pytest.mark.parametrize("is_for_device", [True, False], ids=["to run", "to see"])
def test_nothing_is_built_that_the_backend_says_it_cannot_run(
    tmp_path: Path, is_for_device: bool
) -> None:
    """Where plans only show that a model compiles they are built all the same."""
    add_model(tmp_path / "models", "m", config='backend: "tensorrt"')
    plans = FakePlans(tmp_path / "cache", is_for_device)
    engine = FakeEngine()
    engine.fail["ask", "m"] = FailedPreconditionError("TensorRT cannot be used: no adapter")
    loader = ModelLoader(engine, RepositorySettings((tmp_path / "models",), plans=plans))
    if is_for_device:
        with pytest.raises(FailedPreconditionError, match=r"^TensorRT cannot be used: no adapter$"):
            loader.open_version(loader.plan("m"), 1)
        assert plans.asked == []
        del engine.fail["ask", "m"]
    loader.open_version(loader.plan("m"), 1)
    assert [each.rows for each in plans.asked] == [64], "as the server completes max_batch_size"


@pytest.mark.parametrize("is_built", [True, False], ids=["at load", "ahead"])
def test_plan_that_is_refused_says_what_built_it(tmp_path: Path, is_built: bool) -> None:
    add_model(tmp_path / "models", "m", config='backend: "tensorrt" max_batch_size: 8')
    if not is_built:
        (tmp_path / "models" / "m" / "1" / "model.plan").write_text(signature_text())
    settings = RepositorySettings((tmp_path / "models",), plans=FakePlans(tmp_path / "cache"))
    engine = FakeEngine()
    engine.fail["open", "m"] = InvalidArgumentError("TensorRT 11.1.0.106 does not take the plan")
    loader = ModelLoader(engine, settings)
    with pytest.raises(InvalidArgumentError) as raised:
        loader.open_version(loader.plan("m"), 1)
    assert raised.value.message == (
        "TensorRT 11.1.0.106 does not take the plan; the plan was built by TensorRT 11.4.0.106"
    )


def test_refusal_of_what_is_no_plan_is_left_as_it_is(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "m", config='backend: "onnxruntime"')
    settings = RepositorySettings((tmp_path / "models",), plans=FakePlans(tmp_path / "cache"))
    engine = FakeEngine()
    engine.fail["open", "m"] = InvalidArgumentError("no such operator")
    loader = ModelLoader(engine, settings)
    with pytest.raises(InvalidArgumentError, match=r"^no such operator$"):
        loader.open_version(loader.plan("m"), 1)


@pytest.mark.parametrize("drains_in_time", [True, False])
async def test_plan_of_a_version_that_is_freed_may_go_whoever_refers_to_it(
    tmp_path: Path, drains_in_time: bool
) -> None:
    plans = FakePlans(tmp_path / "cache")
    add_model(tmp_path / "models", "m", config='backend: "tensorrt" max_batch_size: 8')
    settings = RepositorySettings((tmp_path / "models",), control_mode="explicit", plans=plans)
    engine = FakeEngine()
    engine.drains_in_time = drains_in_time
    manager = ModelManager(engine, settings)
    await manager.start()
    await manager.load("m")
    record = manager.record("m")
    assert record is not None
    referred = record.serving[1]  # as by a cycle that the collector does not go through
    assert plans.is_in_use()
    await manager.unload("m")
    await until_unloaded(manager, "m")
    assert plans.is_in_use() is not drains_in_time, "what is not freed has it in use"
    engine.drains_in_time = True
    await manager.leftovers.look()
    assert not plans.is_in_use()
    del referred
    assert await manager.close(30)
