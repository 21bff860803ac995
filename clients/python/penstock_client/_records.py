"""What the server says about itself and its models, as plain frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Who answers.

    Attributes:
        name: The server's name.
        version: Its version.
        extensions: Protocol extensions it speaks, for instance "statistics".
    """

    name: str
    version: str
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output of a model.

    Attributes:
        name: Its name in requests and results.
        datatype: Wire datatype, for instance "FP32" (see `penstock_client.tensors`).
        shape: Dimensions, the batch dimension included; -1 is any size.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's interface.

    Attributes:
        name: The model.
        versions: The versions that can be asked for.
        platform: What runs it, for instance "onnxruntime_onnx".
        inputs: What it takes.
        outputs: What it gives.
        runs_on: Where it computes, for instance "GPU 0 (NVIDIA H200), CUDAExecutionProvider"; empty
            where the server does not say.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class ModelIndexEntry:
    """One model version in the repository.

    Attributes:
        name: The model.
        version: The version, "" when none was loaded.
        state: "READY", "UNAVAILABLE", "LOADING", "UNLOADING", or "" when never loaded.
        reason: Why it is in that state; "" when there is nothing to say.
    """

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class SharedMemoryRegion:
    """A region of system shared memory that is registered with a server.

    Attributes:
        name: What requests call it.
        key: What the system calls the object that it is part of.
        offset: Where in the object it begins.
        byte_size: Its size.
    """

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class CudaMemoryRegion:
    """A region of a GPU's memory that is registered with a server.

    Attributes:
        name: What requests call it.
        device_id: The GPU, as the server numbers them.
        byte_size: Its size.
    """

    name: str
    device_id: int
    byte_size: int


@dataclass(frozen=True, slots=True)
class Duration:
    """A counter with the time it took.

    Attributes:
        count: How often.
        total_ns: Nanoseconds in all.
    """

    count: int = 0
    total_ns: int = 0

    @property
    def mean_s(self) -> float:
        """Seconds per occurrence; 0.0 when there was none."""
        return self.total_ns / self.count / 1e9 if self.count else 0.0


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Model executions of one batch size; each count is a number of executions."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory that a model holds.

    Attributes:
        type: "CPU", "CPU_PINNED" or "GPU".
        id: Which of them, as the server counts.
        size_bytes: How much.
    """

    type: str
    id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What a model version has done since it was loaded.

    Attributes:
        name: The model.
        version: The version.
        last_inference_ms: Unix time of the last request in milliseconds, 0 when none came.
        inference_count: Inferences; a request of n rows counts n.
        execution_count: Times the model ran; `inference_count / execution_count` is the mean
            batch size.
        success: Requests that ended OK, with their whole time in the server.
        fail: Requests that failed.
        queue: Time spent waiting for a batch and an instance.
        compute_input: Time spent gathering inputs.
        compute_infer: Time spent in the model.
        compute_output: Time spent handing out outputs.
        batches: The executions by batch size.
        memory: What it holds of devices, as far as the server knows.
    """

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: tuple[BatchStatistics, ...] = ()
    memory: tuple[MemoryUsage, ...] = ()
