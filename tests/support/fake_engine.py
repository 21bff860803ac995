"""A ModelEngine without a native core: model files are small JSON signatures, and every step can be
made to fail or to wait."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from penstock.errors import CoreError, InvalidArgumentError, NotFoundError
from penstock.repository.engine import (
    EngineVersion,
    FileTensor,
    ModelSource,
    OpenedModel,
    ServingSpec,
)

WAIT_S = 30


def tensor(name: str, datatype: str = "FP32", dims: Sequence[int] = (-1, 4)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "dims": list(dims)}


def signature_text(
    inputs: Sequence[Mapping[str, Any]] = (tensor("x"),),
    outputs: Sequence[Mapping[str, Any]] = (tensor("y", dims=(-1, 2)),),
    **more: Any,
) -> str:
    """A model file for the fake engine. `more`: `most_rows`, as a plan has."""
    return json.dumps({"inputs": list(inputs), "outputs": list(outputs), **more})


def add_model(
    repository: Path,
    name: str,
    *,
    versions: Sequence[int] = (1,),
    config: str | None = None,
    signature: str | None = None,
) -> Path:
    """Lays out a model; returns its directory."""
    for version in versions:
        (repository / name / str(version)).mkdir(parents=True)
        text = signature_text() if signature is None else signature
        (repository / name / str(version) / "model.onnx").write_text(text)
    (repository / name).mkdir(parents=True, exist_ok=True)
    if config is not None:
        (repository / name / "config.pbtxt").write_text(config)
    return repository / name


@dataclass
class FakeModel:
    source: ModelSource
    inputs: Sequence[FileTensor]
    outputs: Sequence[FileTensor]
    max_batch_size: int | None = None
    batches_dynamically: bool = False
    is_decoupled: bool = False
    most_rows: int | None = None
    runs_on: str = "CPU"
    engine: str = "Fake 1"


@dataclass(eq=False)
class FakeVersion:
    """Records what is done to it, in order, in `log`."""

    spec: ServingSpec
    engine: FakeEngine
    log: list[str] = field(default_factory=list)
    warm_ups: list[bytes] = field(default_factory=list)

    def warm_up(self, request: bytes) -> None:
        self.engine.enter("warm_up", self.spec.model_name)
        self.log.append("warm_up")
        self.warm_ups.append(request)

    def is_available(self) -> bool:
        return True

    def add_instance(self, warm_ups: Sequence[bytes]) -> None:
        self.engine.enter("add", self.spec.model_name)
        self.log.append("add")

    def remove_instance(self, timeout_s: float) -> bool:
        self.log.append("remove")
        return True

    def start(self) -> None:
        self.log.append("start")

    def close(self, timeout_s: float) -> bool:
        self.engine.enter("close", self.spec.model_name)
        self.log.append("close")
        return self.engine.drains_in_time

    def reap(self) -> bool:
        self.log.append("reap")
        return self.engine.drains_in_time

    def stats(self) -> Mapping[str, Any]:
        return {"instances": self.spec.instance_count, **self.engine.counters.get(self, {})}


class FakeEngine:
    """`fail[(step, model)]` raises there; `hold(step, model)` makes it wait until released.

    Steps are open, create, warm_up and close; and ask: to open a file that is not there.
    """

    def __init__(self) -> None:
        self.fail: dict[tuple[str, str], Exception] = {}
        self.opened: list[ModelSource] = []
        self.created: list[FakeVersion] = []
        self.serving: dict[str, list[FakeVersion]] = {}
        self.unready: dict[str, list[int]] = {}
        self.on_demand: dict[str, bool] = {}
        self.waits: dict[str, int] = {}
        self.ended: list[tuple[str, int, str]] = []
        self.given_up: list[str] = []
        self.loadable: dict[str, list[int]] = {}
        self.drains_in_time = True
        self.counters: dict[FakeVersion, Mapping[str, Any]] = {}
        self.entered: defaultdict[tuple[str, str], threading.Event] = defaultdict(threading.Event)
        self._gates: dict[tuple[str, str], threading.Event] = {}

    def hold(self, step: str, model: str) -> threading.Event:
        """The step waits until the event is set."""
        gate = self._gates[step, model] = threading.Event()
        return gate

    def enter(self, step: str, model: str) -> None:
        self.entered[step, model].set()
        gate = self._gates.get((step, model))
        if gate is not None and not gate.wait(WAIT_S):
            raise TimeoutError(f"nobody released {step} of {model}")
        if (step, model) in self.fail:
            raise self.fail[step, model]

    def open_model(self, source: ModelSource) -> OpenedModel:
        if not Path(source.path).exists():
            self.enter("ask", source.model_name)
            raise NotFoundError(f"version {source.version}: its file cannot be opened")
        self.enter("open", source.model_name)
        self.opened.append(source)
        path = Path(source.path)
        try:
            signature = json.loads((path / "model.json" if path.is_dir() else path).read_text())
        except ValueError:
            raise _corrupt(source) from None
        inputs, outputs = _tensors(signature.pop("inputs")), _tensors(signature.pop("outputs"))
        return FakeModel(source, inputs, outputs, **signature)

    def create_version(self, model: OpenedModel, spec: ServingSpec) -> EngineVersion:
        self.enter("create", spec.model_name)
        version = FakeVersion(spec, self)
        self.created.append(version)
        return version

    def set_serving(
        self,
        model_name: str,
        versions: Sequence[EngineVersion],
        unready: Sequence[int] = (),
        loads_on_demand: bool = False,
    ) -> None:
        self.on_demand[model_name] = loads_on_demand
        self.serving[model_name] = cast(list[FakeVersion], list(versions))
        self.unready[model_name] = list(unready)

    def end_wait(self, model_name: str, code: int, message: str) -> None:
        self.ended.append((model_name, code, message))

    def give_up_load(self, model_name: str) -> None:
        self.given_up.append(model_name)

    def set_loadable(self, model_name: str, versions: Sequence[int]) -> None:
        self.loadable[model_name] = list(versions)

    def waiting(self, model_name: str) -> int:
        return self.waits.get(model_name, 0)

    def forget(self, model_name: str) -> None:
        assert self.serving.pop(model_name) == []
        del self.unready[model_name]


def _corrupt(source: ModelSource) -> CoreError:
    return InvalidArgumentError(f"version {source.version}: the model file is corrupt")


def _tensors(listed: Sequence[Mapping[str, Any]]) -> tuple[FileTensor, ...]:
    return tuple(
        FileTensor(t["name"], t["datatype"], tuple(t["dims"]), t.get("optional", False))
        for t in listed
    )
