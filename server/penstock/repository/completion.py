"""Completes a configuration from the signature of the model file and checks one against the other.

Pure functions. What is written is checked, never changed; what is not written is filled in:

* inputs and outputs, and the datatype and dims of those that lack them. Optional inputs are served
  only if they are listed: in an ONNX file they are mostly weights that may be overridden;
* max_batch_size: what a model that is code says; else `DEFAULT_MAX_BATCH_SIZE`, or the most rows
  that a plan was built for, where the first dimension of all that is served is -1, else 0. A
  configuration that lists shapes in full, batch dimension included, also means 0;
* dynamic batching: on, with no delay, where max_batch_size was filled in from the shapes, or a
  model that is code says so. A configuration that writes a max_batch_size and no dynamic_batching
  means that every request is its own batch;
* model_transaction_policy: decoupled, where a model that is code is;
* instance_group.gpus: all that the server sees, of groups of KIND_GPU; the first of them, where
  instances_max allows no instances on more;
* instance_group.count: 1; on a GPU as many as batches may be under way there, since an instance has
  one of them, but for models whose number of instances has bounds: those begin with 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.codec import DynamicBatching, InstanceGroup, ModelConfig, TensorConfig
from penstock.repository.backends import (
    ALSO_ON_GPUS,
    DEFAULT_FILENAMES,
    kind_of,
    platform_of,
    slots_on_gpu,
)
from penstock.repository.engine import FileTensor
from penstock.repository.own_parameters import (
    has_instance_bounds,
    instance_count,
    most_instances,
)
from penstock.repository.policy import DEFAULT_POLICY

DEFAULT_MAX_BATCH_SIZE = 64
"""max_batch_size of a model that can batch and whose configuration does not say."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What the model file declares; a model that is code may also say how it is batched.

    most_rows: of a batch, as a plan's profiles have it; None: any.
    """

    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    max_batch_size: int | None = None
    batches_dynamically: bool = False
    is_decoupled: bool = False
    most_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A completed configuration, and every fault of the written one against the file."""

    config: ModelConfig
    faults: tuple[str, ...]


def with_names(config: ModelConfig, model_name: str, backend: str) -> ModelConfig:
    """The configuration with everything that needs no model file."""
    groups = config.instance_groups or (InstanceGroup(name=model_name),)
    return replace(
        config,
        name=model_name,
        backend=backend,
        platform=platform_of(backend),
        version_policy=config.version_policy or DEFAULT_POLICY,
        default_model_filename=config.default_model_filename or DEFAULT_FILENAMES.get(backend, ""),
        instance_groups=tuple(
            _complete_group(group, backend, config.parameters) for group in groups
        ),
    )


def _complete_group(
    group: InstanceGroup, backend: str, parameters: Mapping[str, str]
) -> InstanceGroup:
    kind = kind_of(group, backend)
    has_slots = kind == "KIND_GPU" and not has_instance_bounds(parameters)
    # An instance group's `gpus` have `count` instances each.
    devices = 1 if group.gpus else len(parameters.get("device", "").split(","))
    default = devices * slots_on_gpu(backend, parameters) if has_slots else 1
    return replace(group, count=group.count or default, kind=kind)


def leaves_gpus_open(config: ModelConfig) -> bool:
    """Whether a model is to run on all GPUs that there are; names are filled in."""
    return any(map(is_open, config.instance_groups)) and "device" not in config.parameters


def is_open(group: InstanceGroup) -> bool:
    """Whether a group, whose kind is filled in, is of all GPUs that there are."""
    return group.kind == "KIND_GPU" and not group.gpus


def with_gpus(config: ModelConfig, count: int) -> ModelConfig:
    """The configuration with groups of KIND_GPU that name no GPUs on all, which are `count`.

    On the first ones, where its instances on more were more than instances_max.
    """
    most = most_instances(config)
    for number in range(count, 1, -1):
        completed = _with_first_gpus(config, number)
        if most is None or instance_count(completed) <= most:
            return completed
    return config  # left open it is GPU 0, of which its backend says what it lacks


def _with_first_gpus(config: ModelConfig, count: int) -> ModelConfig:
    gpus = tuple(range(count))
    groups = (
        replace(group, gpus=gpus) if is_open(group) else group for group in config.instance_groups
    )
    return replace(config, instance_groups=tuple(groups))


def complete(config: ModelConfig, signature: Signature) -> Completion:
    """Completes a configuration and finds every fault of it against the model file.

    Args:
        config: as written, names filled in; without faults of its own.
        signature: of the file.
    """
    max_batch_size = config.max_batch_size
    batching = config.dynamic_batching
    served = _served(config, signature)
    if batching is None and signature.batches_dynamically:
        batching = DynamicBatching()
    if max_batch_size is None:
        max_batch_size = signature.max_batch_size
    if max_batch_size is None:
        can_batch = _can_batch(served) and not _lists_full_shapes(config, served)
        max_batch_size = _default_rows(signature) if can_batch else 0
        if can_batch and batching is None:
            batching = DynamicBatching()
    has_batch = max_batch_size > 0
    completed = replace(
        config,
        max_batch_size=max_batch_size,
        dynamic_batching=batching,
        decoupled=True if config.decoupled is None and signature.is_decoupled else config.decoupled,
        inputs=_complete_tensors(config.inputs, served.inputs, has_batch),
        outputs=_complete_tensors(config.outputs, served.outputs, has_batch),
    )
    is_written = config.max_batch_size is not None
    return Completion(completed, tuple(_faults(completed, signature, is_written)))


def _served(config: ModelConfig, signature: Signature) -> Signature:
    """What of the file is served: what is listed, or all but the optional inputs."""
    inputs = {tensor.name for tensor in config.inputs}
    outputs = {tensor.name for tensor in config.outputs}
    return Signature(
        tuple(t for t in signature.inputs if (t.name in inputs if inputs else not t.optional)),
        tuple(t for t in signature.outputs if t.name in outputs or not outputs),
    )


def _default_rows(signature: Signature) -> int:
    most = signature.most_rows
    return DEFAULT_MAX_BATCH_SIZE if most is None else min(DEFAULT_MAX_BATCH_SIZE, most)


def _can_batch(signature: Signature) -> bool:
    return all(
        tensor.dims and tensor.dims[0] == -1 for tensor in signature.inputs + signature.outputs
    )


def _lists_full_shapes(config: ModelConfig, signature: Signature) -> bool:
    ranks = {tensor.name: len(tensor.dims) for tensor in signature.inputs + signature.outputs}
    return any(
        tensor.dims and ranks.get(tensor.name) == len(_file_dims(tensor))
        for tensor in config.inputs + config.outputs
    )


def _file_dims(tensor: TensorConfig) -> tuple[int, ...]:
    """What a tensor's configuration expects in the file, without the batch dimension."""
    return tensor.dims if tensor.reshape is None else tensor.reshape


def _complete_tensors(
    written: Sequence[TensorConfig], found: Sequence[FileTensor], has_batch: bool
) -> tuple[TensorConfig, ...]:
    if not written:
        return tuple(TensorConfig(t.name, t.datatype, t.dims[has_batch:]) for t in found)
    by_name = {tensor.name: tensor for tensor in found}
    return tuple(_complete_tensor(each, by_name.get(each.name), has_batch) for each in written)


def _complete_tensor(
    written: TensorConfig, found: FileTensor | None, has_batch: bool
) -> TensorConfig:
    if found is None:
        return written
    dims = written.dims
    if not dims and written.reshape is None:
        dims = found.dims[has_batch:]
    return replace(written, datatype=written.datatype or found.datatype, dims=dims)


def _faults(config: ModelConfig, signature: Signature, is_written: bool) -> Iterator[str]:
    """`is_written`: the max_batch_size."""
    if signature.is_decoupled and config.decoupled is False:
        yield (
            "model_transaction_policy.decoupled: the model answers requests with any number of "
            "responses, expected true"
        )
    if config.max_batch_size:
        yield from _rows_faults(config, signature.most_rows, is_written)
        yield from _batch_dimension_faults(config.max_batch_size, _served(config, signature))
    yield from _tensor_faults("input", config, config.inputs, signature.inputs)
    yield from _tensor_faults("output", config, config.outputs, signature.outputs)
    listed = {tensor.name for tensor in config.inputs}
    for tensor in signature.inputs:
        if tensor.name not in listed and not tensor.optional:
            yield (
                f"input: the model file requires input '{tensor.name}' "
                f"({len(signature.inputs)} in all), it is not listed"
            )
    yield from _warmup_faults(config)


def _rows_faults(config: ModelConfig, most: int | None, is_written: bool) -> Iterator[str]:
    """Batches of more rows than the model takes, of which max_batch_size is completed."""
    if most is None or config.max_batch_size is None:
        return
    if config.backend in ALSO_ON_GPUS:
        more, other = "its shapes allow on a GPU", "a greater parameter shape:NAME"
    else:
        more, other = "the plan was built for", "a plan that is built anew (penstock build-engine)"
    refused = f"is more rows than {more}, {most}: expected at most {most}, or"
    if config.max_batch_size > most:
        yield f"max_batch_size: {config.max_batch_size} {refused} {other}"
        return
    preferred = config.dynamic_batching.preferred_batch_sizes if config.dynamic_batching else ()
    if not is_written and max(preferred, default=0) > DEFAULT_MAX_BATCH_SIZE:
        # No shapes are laid out for more rows than that, until the configuration says so.
        other = f"max_batch_size: {max(preferred)} to be written"
    for size in preferred:
        if size > most:
            yield f"dynamic_batching.preferred_batch_size: {size} {refused} {other}"


def _batch_dimension_faults(max_batch_size: int, signature: Signature) -> Iterator[str]:
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if not tensor.dims or tensor.dims[0] != -1:
                yield (
                    f"max_batch_size: {max_batch_size} needs a model with a batch dimension, but "
                    f"{kind} '{tensor.name}' has shape {list(tensor.dims)} in the model file, "
                    "expected -1 first"
                )


def _tensor_faults(
    kind: str, config: ModelConfig, written: Sequence[TensorConfig], found: Sequence[FileTensor]
) -> Iterator[str]:
    by_name = {tensor.name: tensor for tensor in found}
    for index, tensor in enumerate(written):
        path = f"{kind}[{index}]"
        file_tensor = by_name.get(tensor.name)
        if file_tensor is None:
            names = ", ".join(f"'{name}'" for name in by_name)
            yield f"{path}.name: the model file has no {kind} '{tensor.name}', it has {names}"
            continue
        if tensor.datatype != file_tensor.datatype:
            yield (
                f"{path}.data_type: '{tensor.name}' is {file_tensor.datatype} in the model file, "
                f"got {tensor.datatype}"
            )
        if tensor.optional and not file_tensor.optional:
            yield f"{path}.optional: the model file requires input '{tensor.name}'"
        yield from _dims_faults(path, config, tensor, file_tensor)


def _dims_faults(
    path: str, config: ModelConfig, tensor: TensorConfig, found: FileTensor
) -> Iterator[str]:
    has_batch = bool(config.max_batch_size)
    if has_batch and (not found.dims or found.dims[0] != -1):
        return  # told already: the model has no batch dimension
    expected = found.dims[has_batch:]
    got = _file_dims(tensor)
    fits = len(expected) == len(got) and all(
        e in (-1, g) for e, g in zip(expected, got, strict=True)
    )
    if not fits:
        field = "dims" if tensor.reshape is None else "reshape.shape"
        without = ", without the batch dimension" if has_batch else ""
        yield (
            f"{path}.{field}: '{tensor.name}' is {list(expected)} in the model file{without}, "
            f"got {list(got)}"
        )


def _warmup_faults(config: ModelConfig) -> Iterator[str]:
    inputs = {tensor.name: tensor for tensor in config.inputs}
    for index, warmup in enumerate(config.warmups):
        path = f"model_warmup[{index}]"
        if warmup.batch_size > max(config.max_batch_size or 0, 1):
            yield f"{path}.batch_size: {warmup.batch_size} is more than max_batch_size"
        for name in inputs.keys() - warmup.inputs.keys():
            if not inputs[name].optional:
                yield f"{path}.inputs: input '{name}' is missing"
        for name, given in warmup.inputs.items():
            tensor = inputs.get(name)
            if tensor is None:
                yield f"{path}.inputs['{name}']: the model has no such input"
            elif given.datatype != tensor.datatype:
                yield (
                    f"{path}.inputs['{name}'].data_type: expected {tensor.datatype}, "
                    f"got {given.datatype}"
                )
            elif len(given.dims) != len(tensor.dims) or any(
                t not in (-1, g) for t, g in zip(tensor.dims, given.dims, strict=True)
            ):
                yield (
                    f"{path}.inputs['{name}'].dims: expected {list(tensor.dims)}, "
                    f"got {list(given.dims)}"
                )
