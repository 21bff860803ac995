"""Plans that are made of ONNX models: in use until their version is freed, and no longer."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.budgets import until_unloaded
from tests.support.fake_engine import FakeEngine, add_model, signature_text

from penstock.codec import ModelConfig
from penstock.engines.places import EngineInUse, EnginePlaces
from penstock.errors import FailedPreconditionError, InvalidArgumentError
from penstock.repository import ModelManager, RepositorySettings
from penstock.repository.loader import ModelLoader


class _Plans:
    """A PlanBuilder whose plans are there."""

    def __init__(self, directory: Path, is_for_device: bool = True) -> None:
        self._places = EnginePlaces(directory, 0)
        self._is_for_device = is_for_device
        self.rows: list[int] = []

    def plan_of(
        self,
        model: Path,
        label: str,
        config: ModelConfig,
        device: str,
        rows: int,
        check: Callable[[], None],
    ) -> EngineInUse:
        if self._is_for_device:
            check()
        self.rows.append(rows)
        engine = self._places.use("a" * 64, "model.plan")
        engine.path.write_text(signature_text())
        return engine

    def maker_of(self, plan: Path) -> str | None:
        return "TensorRT 11.4.0.106" if plan.suffix == ".plan" else None

    def stats(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        """Nothing is being built."""


def is_in_use(directory: Path) -> bool:
    descriptor = os.open(directory / ("a" * 64) / "in-use", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.parametrize("is_for_device", [True, False], ids=["to run", "to see"])
def test_nothing_is_built_that_the_backend_says_it_cannot_run(
    tmp_path: Path, is_for_device: bool
) -> None:
    """Where plans only show that a model compiles they are built all the same."""
    add_model(tmp_path / "models", "m", config='backend: "tensorrt"')
    plans = _Plans(tmp_path / "cache", is_for_device)
    engine = FakeEngine()
    engine.fail["ask", "m"] = FailedPreconditionError("TensorRT cannot be used: no adapter")
    loader = ModelLoader(engine, RepositorySettings((tmp_path / "models",), plans=plans))
    if is_for_device:
        with pytest.raises(FailedPreconditionError, match=r"^TensorRT cannot be used: no adapter$"):
            loader.open_version(loader.plan("m"), 1)
        assert plans.rows == []
        del engine.fail["ask", "m"]
    loader.open_version(loader.plan("m"), 1)
    assert plans.rows == [64], "as the server completes max_batch_size"


@pytest.mark.parametrize("is_built", [True, False], ids=["at load", "ahead"])
def test_plan_that_is_refused_says_what_built_it(tmp_path: Path, is_built: bool) -> None:
    add_model(tmp_path / "models", "m", config='backend: "tensorrt" max_batch_size: 8')
    if not is_built:
        (tmp_path / "models" / "m" / "1" / "model.plan").write_text(signature_text())
    settings = RepositorySettings((tmp_path / "models",), plans=_Plans(tmp_path / "cache"))
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
    settings = RepositorySettings((tmp_path / "models",), plans=_Plans(tmp_path / "cache"))
    engine = FakeEngine()
    engine.fail["open", "m"] = InvalidArgumentError("no such operator")
    loader = ModelLoader(engine, settings)
    with pytest.raises(InvalidArgumentError, match=r"^no such operator$"):
        loader.open_version(loader.plan("m"), 1)


@pytest.mark.parametrize("drains_in_time", [True, False])
async def test_plan_of_a_version_that_is_freed_may_go_whoever_refers_to_it(
    tmp_path: Path, drains_in_time: bool
) -> None:
    cache = tmp_path / "cache"
    add_model(tmp_path / "models", "m", config='backend: "tensorrt" max_batch_size: 8')
    settings = RepositorySettings(
        (tmp_path / "models",), control_mode="explicit", plans=_Plans(cache)
    )
    engine = FakeEngine()
    engine.drains_in_time = drains_in_time
    manager = ModelManager(engine, settings)
    await manager.start()
    await manager.load("m")
    record = manager.record("m")
    assert record is not None
    referred = record.serving[1]  # as by a cycle that the collector does not go through
    assert is_in_use(cache)
    await manager.unload("m")
    await until_unloaded(manager, "m")
    assert is_in_use(cache) is not drains_in_time, "what is not freed has it in use"
    engine.drains_in_time = True
    await manager.leftovers.look()
    assert not is_in_use(cache)
    del referred
    assert await manager.close(30)
