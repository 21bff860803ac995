"""What can be wrong in a configuration before the model file is opened: a list of faults.

Pure functions. Each fault is one sentence that begins with the path of the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from penstock.codec import (
    DynamicBatching,
    InstanceGroup,
    ModelConfig,
    Optimization,
    QueueSettings,
    TensorConfig,
    Warmup,
)
from penstock.repository.backends import ALSO_ON_GPUS, kind_of
from penstock.repository.layout import escapes
from penstock.repository.own_parameters import MAX_INSTANCES, instance_count, own_faults

DATATYPES = frozenset(
    """BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 BF16 FP32 FP64 BYTES""".split()
)
MAX_PRIORITY_LEVELS = 256
MAX_WARMUP_BYTES = 1 << 30
MAX_WARMUP_RUNS = 10_000
MAX_INT63 = (1 << 63) - 1
_DEVICE_KINDS = frozenset({"KIND_CPU", "KIND_GPU"})
_KINDS_OF = {"openvino": ("KIND_CPU",), "python": ("KIND_CPU",), "tensorrt": ("KIND_GPU",)}
_EITHER_KIND = ("KIND_CPU", "KIND_GPU")  # of onnxruntime, and of plug-ins that others bring
_ACCELERATORS = ("tensorrt", "cuda")


def config_faults(config: ModelConfig, model_name: str) -> list[str]:
    """Every fault of a configuration as written; none means it may be completed from the file."""
    return list(_all_faults(config, model_name))


def _all_faults(config: ModelConfig, model_name: str) -> Iterator[str]:
    if config.name and config.name != model_name:
        yield f"name: expected the name of the directory, '{model_name}', got '{config.name}'"
    if config.max_batch_size is not None and config.max_batch_size < 0:
        yield f"max_batch_size: expected 0 or more, got {config.max_batch_size}"
    if escapes(config.default_model_filename):
        yield (
            f"default_model_filename: '{config.default_model_filename}' leads out of the "
            "version's directory"
        )
    yield from _tensors_faults("input", config.inputs, config.max_batch_size)
    yield from _tensors_faults("output", config.outputs, config.max_batch_size)
    for index, group in enumerate(config.instance_groups):
        if group.count < 0:
            yield f"instance_group[{index}].count: expected 0 or more, got {group.count}"
    yield from instance_faults(config)
    yield from own_faults(config)
    if config.dynamic_batching is not None:
        yield from _batching_faults(config.dynamic_batching, config.max_batch_size)
        if config.decoupled and config.dynamic_batching.preserve_ordering:
            yield (
                "dynamic_batching.preserve_ordering: not allowed with "
                "model_transaction_policy.decoupled"
            )
    if config.optimization is not None:
        yield from _optimization_faults(config.optimization, config.parameters)
    for index, warmup in enumerate(config.warmups):
        yield from _warmup_faults(f"model_warmup[{index}]", warmup, config.max_batch_size)


def _tensors_faults(
    kind: str, tensors: Sequence[TensorConfig], max_batch_size: int | None
) -> Iterator[str]:
    seen: set[str] = set()
    for index, tensor in enumerate(tensors):
        path = f"{kind}[{index}]"
        if not tensor.name:
            yield f"{path}.name: expected a name"
        elif tensor.name in seen:
            yield f"{path}.name: '{tensor.name}' is listed twice"
        seen.add(tensor.name)
        if tensor.datatype and tensor.datatype not in DATATYPES:
            yield f"{path}.data_type: there is no type {tensor.datatype}"
        yield from _dims_faults(f"{path}.dims", tensor.dims)
        if tensor.reshape is not None:
            yield from _reshape_faults(f"{path}.reshape", tensor, max_batch_size)
        if tensor.layout not in ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"):
            yield f"{path}.format: there is no format {tensor.layout}"
        elif tensor.layout != "FORMAT_NONE" and tensor.dims and len(tensor.dims) != 3:
            yield f"{path}.format: {tensor.layout} needs 3 dims, got {list(tensor.dims)}"
        if escapes(tensor.label_filename):
            yield (
                f"{path}.label_filename: '{tensor.label_filename}' leads out of the model's "
                "directory"
            )


def _dims_faults(path: str, dims: Iterable[int]) -> Iterator[str]:
    for dim in dims:
        if dim < 1 and dim != -1:
            yield f"{path}: expected positive numbers or -1, got {dim}"


def _reshape_faults(path: str, tensor: TensorConfig, max_batch_size: int | None) -> Iterator[str]:
    shape = tensor.reshape or ()
    yield from _dims_faults(f"{path}.shape", shape)
    if not shape and max_batch_size == 0:
        yield f"{path}.shape: an empty shape needs a max_batch_size above 0"
    if _element_counts(tensor.dims) != _element_counts(shape):
        yield (
            f"{path}.shape: {list(shape)} does not hold as many elements as "
            f"dims {list(tensor.dims)}"
        )


def _element_counts(dims: Sequence[int]) -> list[int]:
    """Products of the known dims before, between and after the variable ones."""
    counts = [1]
    for dim in dims:
        if dim == -1:
            counts.append(1)
        else:
            counts[-1] *= dim
    return counts


def instance_faults(config: ModelConfig) -> Iterator[str]:
    """More instances, on all GPUs together, than a version may have."""
    total = instance_count(config)
    if total > MAX_INSTANCES:
        yield f"instance_group: {total} instances are more than {MAX_INSTANCES}"


def device_faults(
    groups: Sequence[InstanceGroup], backend: str, optimization: Optimization | None = None
) -> Iterator[str]:
    """What a configuration says of devices that models of the backend do not run on.

    Args:
        groups: instance groups, as written.
        backend: that was chosen.
        optimization: as written.
    """
    allowed = _KINDS_OF.get(backend, _EITHER_KIND)
    for index, group in enumerate(groups):
        path = f"instance_group[{index}]"
        if group.kind in _DEVICE_KINDS and group.kind not in allowed:
            yield (
                f"{path}.kind: {group.kind} is not supported by backend '{backend}', expected "
                f"KIND_AUTO, {' or '.join((*allowed, 'KIND_MODEL'))}"
            )
        elif group.gpus and "KIND_GPU" not in allowed:
            yield f"{path}.gpus: backend '{backend}' runs on no GPUs, got {list(group.gpus)}"
        elif group.gpus and kind_of(group, backend) != "KIND_GPU":
            if allowed == _EITHER_KIND or group.kind == "KIND_CPU":
                yield f"{path}.gpus: expected none with {group.kind}, got {list(group.gpus)}"
        if any(number < 0 for number in group.gpus) or len(set(group.gpus)) < len(group.gpus):
            yield f"{path}.gpus: expected numbers of devices, each once, got {list(group.gpus)}"
    kinds = {kind_of(group, backend) for group in groups}
    if allowed == _EITHER_KIND and len(kinds & _DEVICE_KINDS) > 1:
        yield "instance_group: groups of one model are all of KIND_CPU or all of KIND_GPU"
    if optimization is not None:
        yield from _accelerator_faults(optimization, backend, "KIND_GPU" in kinds)


def _accelerator_faults(optimization: Optimization, backend: str, on_gpu: bool) -> Iterator[str]:
    path = "optimization.execution_accelerators.gpu_execution_accelerator"
    accelerators = optimization.gpu_accelerators
    if accelerators and backend not in ALSO_ON_GPUS:
        yield f"{path}: not supported by backend '{backend}'"
    elif accelerators and not on_gpu:
        yield f"{path}: needs an instance_group of KIND_GPU"
    seen: set[str] = set()
    for index, each in enumerate(accelerators):
        if each.name not in _ACCELERATORS:
            known = " or ".join(f"'{name}'" for name in _ACCELERATORS)
            yield f"{path}[{index}].name: expected {known}, got '{each.name}'"
        elif each.name in seen:
            yield f"{path}[{index}].name: '{each.name}' is listed twice"
        seen.add(each.name)


def _batching_faults(batching: DynamicBatching, max_batch_size: int | None) -> Iterator[str]:
    path = "dynamic_batching"
    for size in batching.preferred_batch_sizes:
        if size < 1 or (max_batch_size is not None and size > max(max_batch_size, 1)):
            limit = "" if max_batch_size is None else f" and at most {max(max_batch_size, 1)}"
            yield f"{path}.preferred_batch_size: expected at least 1{limit}, got {size}"
    if batching.max_queue_delay_us > MAX_INT63:
        yield f"{path}.max_queue_delay_microseconds: {batching.max_queue_delay_us} is too large"
    yield from _priority_faults(path, batching)
    policies = dict[str, QueueSettings](
        {
            f"priority_queue_policy[{level}]": policy
            for level, policy in batching.priority_queue_policies.items()
        }
    )
    if batching.default_queue_policy is not None:
        policies["default_queue_policy"] = batching.default_queue_policy
    for name, policy in policies.items():
        if policy.default_timeout_us > MAX_INT63:
            yield f"{path}.{name}.default_timeout_microseconds: the number is too large"
        if batching.preserve_ordering and _may_be_delayed(policy):
            yield f"{path}.{name}.timeout_action: DELAY is not allowed with preserve_ordering"


def _may_be_delayed(policy: QueueSettings) -> bool:
    has_timeout = policy.default_timeout_us != 0 or policy.allow_timeout_override
    return policy.delay_on_timeout and has_timeout


def _priority_faults(path: str, batching: DynamicBatching) -> Iterator[str]:
    levels = batching.priority_levels
    if levels > MAX_PRIORITY_LEVELS:
        yield f"{path}.priority_levels: expected at most {MAX_PRIORITY_LEVELS}, got {levels}"
    if levels > 1 and batching.preserve_ordering:
        yield f"{path}.priority_levels: expected at most 1 with preserve_ordering, got {levels}"
    default = batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"{path}.default_priority_level: expected a level in [1, {levels}], got {default}"
    if default and not levels:
        yield f"{path}.default_priority_level: {default} needs priority_levels"
    for level in batching.priority_queue_policies:
        if not 1 <= level <= levels:
            yield (
                f"{path}.priority_queue_policy: there is no level {level}, "
                f"priority_levels is {levels}"
            )


def _optimization_faults(optimization: Optimization, parameters: Iterable[str]) -> Iterator[str]:
    if optimization.graph_level is not None and "graph_optimization_level" in parameters:
        yield "optimization.graph.level: parameter graph_optimization_level says the same"


def _warmup_faults(path: str, warmup: Warmup, max_batch_size: int | None) -> Iterator[str]:
    if max_batch_size is not None and warmup.batch_size > max(max_batch_size, 1):
        yield (
            f"{path}.batch_size: expected at most max_batch_size {max_batch_size}, "
            f"got {warmup.batch_size}"
        )
    if warmup.count > MAX_WARMUP_RUNS:
        yield f"{path}.count: expected at most {MAX_WARMUP_RUNS}, got {warmup.count}"
    for name, tensor in warmup.inputs.items():
        here = f"{path}.inputs['{name}']"
        if tensor.datatype not in DATATYPES:
            yield f"{here}.data_type: expected a type"
        if any(dim < 1 for dim in tensor.dims):
            yield f"{here}.dims: expected positive numbers, got {list(tensor.dims)}"
        elif math.prod(tensor.dims) * max(warmup.batch_size, 1) * 8 > MAX_WARMUP_BYTES:
            yield f"{here}.dims: {list(tensor.dims)} is too large for a warm-up"
        if not tensor.source:
            yield f"{here}: expected one of zero_data, random_data and input_data_file"
        if tensor.source == "file" and escapes(tensor.data_file):
            yield f"{here}.input_data_file: '{tensor.data_file}' leads out of warmup/"
