"""The seam between the repository and the native core: what loading needs of an engine.

`core_engine.CoreEngine` is the real one; tests bring their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class FileTensor:
    """An input or output as the model file declares it, batch dimension included, -1 = any."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model file to open.

    Attributes:
        backend: name of the plug-in.
        model_name: for messages.
        version: for messages.
        path: of the file, or of a directory where the format is one.
        model_directory: nothing outside it is read.
        parameters: for the backend.
        config_json: the configuration as far as it is known, for backends that run code.
        devices: GPUs that the model runs on, each in a worker process of its own; none: it runs in
            this process, or where its backend says.
    """

    backend: str
    model_name: str
    version: int
    path: str
    model_directory: str
    parameters: Mapping[str, str]
    config_json: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedTensor:
    """A tensor as clients see it, without the batch dimension; labels are for outputs."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelQueue:
    """The queue of one priority level. Size in requests, 0 = no limit; 0 us = no timeout."""

    max_queue_size: int = 0
    default_timeout_us: int = 0
    delay_on_timeout: bool = False
    honour_request_timeout: bool = True


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """How a version is served. queues: one per priority level, highest first."""

    model_name: str
    version: int
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    max_batch_size: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    dynamic_batching: bool = True
    default_priority_level: int = 1
    queues: tuple[LevelQueue, ...] = (LevelQueue(),)
    instance_count: int = 1
    decoupled: bool = False
    background_batch_size: int = 0


class OpenedModel(Protocol):
    """A model file that its backend has opened; it holds weights."""

    @property
    def inputs(self) -> Sequence[FileTensor]:
        """What it takes."""

    @property
    def outputs(self) -> Sequence[FileTensor]:
        """What it gives."""

    @property
    def max_batch_size(self) -> int | None:
        """What a model that is code says of itself; None: it follows from the tensors."""

    @property
    def most_rows(self) -> int | None:
        """Of a batch, whatever the configuration says, as a plan's profiles have it; None: any."""

    @property
    def is_decoupled(self) -> bool:
        """A model that is code answers a request with none, one or many responses."""

    @property
    def batches_dynamically(self) -> bool:
        """A model that is code says that its requests may share a batch."""

    @property
    def runs_on(self) -> str:
        """Where its batches are computed, for people."""

    @property
    def engine(self) -> str:
        """Name and version of what computes them."""


class EngineVersion(Protocol):
    """A version with its queue and instances. Life: warm_up* -> start -> serving -> close.

    Thread-safe. Freed quietly if it is dropped before start.
    """

    def warm_up(self, request: bytes) -> None:
        """Blocking. Runs the bytes of a ModelInferRequest on every instance; before start only."""

    def start(self) -> None:
        """Blocking, briefly. Starts the threads of the instances."""

    def add_instance(self, warm_ups: Sequence[bytes]) -> None:
        """Blocking. One more instance, which takes batches once it is warm.

        CoreError says why there is none.
        """

    def remove_instance(self, timeout_s: float) -> bool:
        """Blocking. The latest instance ends what it has, and is freed; False: not in time."""

    def close(self, timeout_s: float) -> bool:
        """Blocking. Finishes what it has, then frees the model on this thread.

        False when that took longer than timeout_s: requests were failed, and what runs holds the
        model until a `reap` finds it ended.
        """

    def reap(self) -> bool:
        """Blocking, while the model is freed. After a close that was not in time: frees it now.

        False: something runs still. True also where it is freed already.
        """

    def is_available(self) -> bool:
        """Whether an instance is there to run batches; False once closed."""

    def stats(self) -> Mapping[str, Any]:
        """Counters since creation; empty once closed."""


class ModelEngine(Protocol):
    """Opens models and serves them by name. Thread-safe."""

    def open_model(self, source: ModelSource) -> OpenedModel:
        """Blocking. Opens a model file; CoreError says why it could not."""

    def create_version(self, model: OpenedModel, spec: ServingSpec) -> EngineVersion:
        """Blocking. Makes the instances; `model` came from this engine's open_model."""

    def set_serving(
        self,
        model_name: str,
        versions: Sequence[EngineVersion],
        unready: Sequence[int] = (),
        loads_on_demand: bool = False,
    ) -> None:
        """Replaces in one step what answers for the name; see the core's Engine.set_serving."""

    def end_wait(self, model_name: str, code: int, message: str) -> None:
        """Requests that wait for the model to be loaded fail with this."""

    def give_up_load(self, model_name: str) -> None:
        """Nobody waited, and the load was given up: whoever has come since is a new demand."""

    def set_loadable(self, model_name: str, versions: Sequence[int]) -> None:
        """A load on demand would bring these versions: requests for others end at once.

        That holds until the load has ended: set_serving with versions, end_wait, give_up_load.
        """

    def waiting(self, model_name: str) -> int:
        """How many requests wait for the model to be loaded."""

    def forget(self, model_name: str) -> None:
        """The name is unknown from now on. What serves for it must have been taken out before."""
