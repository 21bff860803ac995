"""The native core behind the repository's seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from penstock.core import (
    Core,
    InputSpec,
    LoadedModel,
    OutputSpec,
    QueuePolicy,
    TensorSpec,
    Version,
    VersionSpec,
)
from penstock.repository.engine import (
    EngineVersion,
    FileTensor,
    ModelSource,
    OpenedModel,
    ServedTensor,
    ServingSpec,
)


def _file_tensor(spec: TensorSpec) -> FileTensor:
    return FileTensor(spec.name, spec.datatype, tuple(spec.dims), spec.optional)


class CoreModel:
    """An OpenedModel of the core."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.inputs: Sequence[FileTensor] = tuple(_file_tensor(spec) for spec in model.inputs)
        self.outputs: Sequence[FileTensor] = tuple(_file_tensor(spec) for spec in model.outputs)
        self.max_batch_size = model.max_batch_size
        self.most_rows = model.most_rows
        self.is_decoupled = model.is_decoupled
        self.batches_dynamically = model.batches_dynamically
        self.runs_on = model.runs_on
        self.engine = model.backend_description


class CoreVersion:
    """An EngineVersion of the core.

    Ownership: holds the only Python reference to the core's version, so that `close` or `reap`
    frees it, and the weights with it, on the thread that calls.
    """

    def __init__(self, version: Version) -> None:
        self.version: Version | None = version
        self._leaving: Version | None = None

    def warm_up(self, request: bytes) -> None:
        """Blocking. Runs a request on every instance."""
        self._open().warm_up(request)

    def start(self) -> None:
        """Starts the threads of the instances."""
        self._open().start()

    def set_digest(self, digest: str) -> None:
        """What it was loaded from, for responses that are asked to say so; before it serves."""
        self._open().set_digest(digest)

    def add_instance(self, warm_ups: Sequence[bytes]) -> None:
        """Blocking. One more instance, once it is warm."""
        self._open().add_instance(warm_ups)

    def remove_instance(self, timeout_s: float) -> bool:
        """Blocking. One instance less."""
        return self._open().remove_instance(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Blocking. Drains and frees."""
        self._leaving, self.version = self._open(), None
        return self._drain(timeout_s)

    def reap(self) -> bool:
        """Blocking, while it is freed. Frees what a close had to leave."""
        return self._drain(0.0)

    def is_available(self) -> bool:
        """Whether an instance is there to run batches; False once closed."""
        version = self.version
        return version is not None and version.is_available()

    def stats(self) -> Mapping[str, Any]:
        """Counters since creation; empty once closed."""
        version = self.version
        return {} if version is None else version.stats()

    def _drain(self, timeout_s: float) -> bool:
        leaving = self._leaving
        if leaving is not None and not leaving.drain(timeout_s):
            return False
        self._leaving = None
        return True

    def _open(self) -> Version:
        if self.version is None:
            raise ValueError("the version is closed")
        return self.version


class CoreEngine:
    """The ModelEngine that serves."""

    def __init__(self, core: Core) -> None:
        self._engine = core.engine

    def open_model(self, source: ModelSource) -> OpenedModel:
        """Blocking. Opens a model file."""
        model = self._engine.load_model(
            backend=source.backend,
            model_name=source.model_name,
            version=source.version,
            path=source.path,
            model_directory=source.model_directory,
            parameters=source.parameters,
            config_json=source.config_json,
            devices=source.devices,
        )
        return CoreModel(model)

    def create_version(self, model: OpenedModel, spec: ServingSpec) -> EngineVersion:
        """Blocking. Makes the instances."""
        loaded = cast(CoreModel, model).model
        return CoreVersion(self._engine.create_version(loaded, _version_spec(spec)))

    def set_serving(
        self,
        model_name: str,
        versions: Sequence[EngineVersion],
        unready: Sequence[int] = (),
        loads_on_demand: bool = False,
    ) -> None:
        """Replaces in one step what answers for the name."""
        opened = [cast(CoreVersion, version).version for version in versions]
        self._engine.set_serving(
            model_name,
            [version for version in opened if version is not None],
            unready,
            loads_on_demand,
        )

    def end_wait(self, model_name: str, code: int, message: str) -> None:
        """Requests that wait for the model to be loaded fail with this."""
        self._engine.end_wait(model_name, code, message)

    def give_up_load(self, model_name: str) -> None:
        """Whoever waits for the model now is a new demand."""
        self._engine.give_up_load(model_name)

    def set_loadable(self, model_name: str, versions: Sequence[int]) -> None:
        """What a load of the model would bring."""
        self._engine.set_loadable(model_name, versions)

    def waiting(self, model_name: str) -> int:
        """How many requests wait for the model to be loaded."""
        return self._engine.waiting(model_name)

    def forget(self, model_name: str) -> None:
        """The name is unknown from now on."""
        self._engine.forget(model_name)


def _input_spec(tensor: ServedTensor) -> InputSpec:
    return InputSpec(tensor.name, tensor.datatype, tensor.dims, tensor.reshape, tensor.optional)


def _output_spec(tensor: ServedTensor) -> OutputSpec:
    return OutputSpec(tensor.name, tensor.datatype, tensor.dims, tensor.reshape, tensor.labels)


def _version_spec(spec: ServingSpec) -> VersionSpec:
    return VersionSpec(
        model_name=spec.model_name,
        version=spec.version,
        inputs=[_input_spec(tensor) for tensor in spec.inputs],
        outputs=[_output_spec(tensor) for tensor in spec.outputs],
        max_batch_size=spec.max_batch_size,
        preferred_batch_sizes=spec.preferred_batch_sizes,
        max_queue_delay_us=spec.max_queue_delay_us,
        preserve_ordering=spec.preserve_ordering,
        dynamic_batching=spec.dynamic_batching,
        default_priority_level=spec.default_priority_level,
        queue_policies=[
            QueuePolicy(
                queue.max_queue_size,
                queue.default_timeout_us,
                queue.delay_on_timeout,
                queue.honour_request_timeout,
            )
            for queue in spec.queues
        ],
        instance_count=spec.instance_count,
        decoupled=spec.decoupled,
        max_background_batch_size=spec.background_batch_size,
    )
