"""The plain values that messages are read into and built from. Frozen: shared freely."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One input or output of a model configuration, as clients see it.

    Attributes:
        name: of the tensor.
        datatype: wire name ("FP32", "BYTES"); empty where the configuration does not say.
        dims: without the batch dimension, -1 = any; empty also where nothing is said.
        reshape: what the model file wants in place of dims; None = the same.
        optional: inputs only: requests may leave it out.
        layout: inputs only: hint for image inputs, FORMAT_NONE, FORMAT_NHWC or FORMAT_NCHW.
        label_filename: outputs only: file in the model's directory, one label per line.
    """

    name: str
    datatype: str = ""
    dims: tuple[int, ...] = ()
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    layout: str = "FORMAT_NONE"
    label_filename: str = ""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The queue of one priority level. Timeouts in microseconds, 0 = none; sizes in requests."""

    delay_on_timeout: bool = False
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """How requests share batches. priority_levels 0 = no priorities; level 1 is served first."""

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueueSettings | None = None
    priority_queue_policies: Mapping[int, QueueSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """A set of equal instances: `count` (0 = 1) on each of `gpus`, which are numbers of devices."""

    name: str = ""
    count: int = 0
    kind: str = "KIND_AUTO"
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions are served: the `num_versions` latest, all, or exactly `versions`."""

    kind: Literal["latest", "all", "specific"] = "latest"
    num_versions: int = 1
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WarmupInput:
    """Contents of one input of a warm-up request. data_file is set where source is "file"."""

    datatype: str
    dims: tuple[int, ...]
    source: Literal["", "zero", "random", "file"]
    data_file: str = ""


@dataclass(frozen=True, slots=True)
class Warmup:
    """A request that a version runs before it takes traffic. batch_size and count: 0 = 1."""

    name: str
    inputs: Mapping[str, WarmupInput]
    batch_size: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What of an engine is to compute on a GPU, "tensorrt" or "cuda", with its settings."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Optimization:
    """Hints for the backend; None = not written. Pinned memory means nothing to CPUs."""

    graph_level: int | None = None
    input_pinned_memory: bool | None = None
    output_pinned_memory: bool | None = None
    gpu_accelerators: tuple[Accelerator, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The configuration of a model: every field that this server supports.

    As read it holds what is written; `penstock.repository.completion` fills in the rest.
    max_batch_size is None only where the configuration does not say, as decoupled is where it has
    no model_transaction_policy.
    """

    name: str = ""
    platform: str = ""
    backend: str = ""
    version_policy: VersionPolicy | None = None
    max_batch_size: int | None = None
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    instance_groups: tuple[InstanceGroup, ...] = ()
    default_model_filename: str = ""
    dynamic_batching: DynamicBatching | None = None
    optimization: Optimization | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    warmups: tuple[Warmup, ...] = ()
    decoupled: bool | None = None


@dataclass(frozen=True, slots=True)
class ConfigReading:
    """A configuration as read, and a fault for each field in it that is not supported."""

    config: ModelConfig
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model and a version of it as the client wrote it; empty = whichever the policy chooses."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """What RepositoryIndex asks for."""

    repository_name: str = ""
    ready_only: bool = False


@dataclass(frozen=True, slots=True)
class SharedRegion:
    """A named part of an object of the system's shared memory.

    Attributes:
        key: of shm_open.
        offset: where the region begins in the object.
    """

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class CudaRegion:
    """A named piece of a GPU's memory.

    Attributes:
        device_id: the GPU, as the server numbers them.
    """

    name: str
    device_id: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What RepositoryModelLoad asks for.

    Attributes:
        repository_name: only empty is supported.
        model_name: of the model.
        config_json: a configuration in place of the file's; None = none given.
        files: names of the "file:<path>" parameters, without the prefix.
    """

    repository_name: str
    model_name: str
    config_json: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnloadRequest:
    """What RepositoryModelUnload asks for."""

    repository_name: str
    model_name: str
    unload_dependents: bool = False


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """A tensor as ModelMetadata tells it: shape with the batch dimension, -1 = any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What ModelMetadata answers; versions are those that are served, ascending.

    Attributes:
        runs_on: where the version that was asked for computes; the message has no field for it.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One version in RepositoryIndex; version and state are empty if it was never loaded."""

    name: str
    version: str = ""
    state: Literal["", "UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"] = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """Counters of one version, as the core's Version.stats() gives them.

    Attributes:
        operations: tells those of an inference, None as long as nobody has counted them; to call it
            has them counted.
        runs_on: where it computes: "CPU", "GPU 0 (NVIDIA H200), CUDAExecutionProvider".
        engine: that runs it, with its version.
        peak: operations per second of its devices, as its configuration says; None: it does not.
    """

    name: str
    version: int
    counters: Mapping[str, Any]
    operations: Callable[[], int | None] = lambda: None
    runs_on: str = ""
    engine: str = ""
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class RawTensor:
    """An input of a request that the server itself makes; data in wire layout."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes
