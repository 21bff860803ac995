"""From a completed configuration to what the engine is told. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.codec import DynamicBatching, ModelConfig, QueueSettings, TensorConfig, TensorMetadata
from penstock.repository.backends import ALSO_ON_GPUS, ON_GPUS
from penstock.repository.completion import DEFAULT_MAX_BATCH_SIZE
from penstock.repository.engine import LevelQueue, ServedTensor, ServingSpec
from penstock.repository.own_parameters import instance_count, without_own

_RESHAPE = "RESHAPE_IO_LAYERS"
_LISTED_RANK = "listed_rank:"

Labels = Mapping[str, tuple[str, ...]]
"""Labels of the classification extension, by output."""


def serving_spec(
    config: ModelConfig, version: int, labels: Labels, *, background_batch_size: int = 0
) -> ServingSpec:
    """How a version is served.

    Args:
        config: completed.
        version: its number.
        labels: by output.
        background_batch_size: most rows of a batch of background requests; 0 =
            max_batch_size.
    """
    batching = config.dynamic_batching or DynamicBatching()
    return ServingSpec(
        model_name=config.name,
        version=version,
        inputs=tuple(_served(tensor, ()) for tensor in config.inputs),
        outputs=tuple(_served(tensor, labels.get(tensor.name, ())) for tensor in config.outputs),
        max_batch_size=config.max_batch_size or 0,
        preferred_batch_sizes=batching.preferred_batch_sizes,
        max_queue_delay_us=batching.max_queue_delay_us,
        preserve_ordering=batching.preserve_ordering,
        dynamic_batching=config.dynamic_batching is not None,
        default_priority_level=max(batching.default_priority_level, 1),
        queues=_queues(batching),
        instance_count=instance_count(config),
        decoupled=bool(config.decoupled),
        background_batch_size=background_batch_size,
    )


def backend_parameters(config: ModelConfig) -> dict[str, str]:
    """The parameters for the backend, and what of the configuration it reads as parameters.

    These are the optimization level, under its parameter's name, and for RESHAPE_IO_LAYERS (of the
    openvino backend) the shape that the model file is to take for each input that is listed; the
    devices of the instance groups, where the model runs on GPUs, and what a backend that also runs
    on CPUs has to know there.

    Args:
        config: with names; the rest as written.
    """
    parameters = without_own(config.parameters)
    if config.optimization is not None and config.optimization.graph_level is not None:
        parameters["graph_optimization_level"] = str(config.optimization.graph_level)
    gpus = sorted({number for group in config.instance_groups for number in group.gpus})
    on_gpu = _is_on_gpu(config)
    if on_gpu and gpus:  # a device's UUID, in a parameter, says more
        parameters.setdefault("device", ",".join(map(str, gpus)))
    if on_gpu:  # where shapes are laid out ahead of time, whether the first dimension is rows
        rows = config.max_batch_size
        parameters["max_batch_size"] = str(DEFAULT_MAX_BATCH_SIZE if rows is None else rows)
        if rows is None:
            parameters |= _listed_ranks(config)
    if on_gpu and config.backend in ALSO_ON_GPUS:
        parameters["device_kind"] = "gpu"
        parameters["dynamic_batching"] = str(int(_shares_batches(config)))
        parameters |= _accelerator_parameters(config)
    if config.backend == "openvino" and parameters.get(_RESHAPE, "").lower() == "yes":
        batch = (-1,) if config.max_batch_size else ()
        for tensor in config.inputs:
            if not tensor.dims and tensor.reshape is None:
                continue  # its shape is the file's
            dims = tensor.dims if tensor.reshape is None else tensor.reshape
            parameters[f"{_RESHAPE}:{tensor.name}"] = ",".join(map(str, (*batch, *dims)))
    return parameters


def devices_of(config: ModelConfig, parameters: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that the model runs on, as numbers or UUIDs; none: it runs on no GPU.

    Args:
        config: with names; the rest as written.
        parameters: those that backend_parameters made of it.
    """
    if not _is_on_gpu(config):
        return ()
    return tuple(name.strip() for name in parameters.get("device", "0").split(","))


def _is_on_gpu(config: ModelConfig) -> bool:
    return config.backend in ON_GPUS or any(
        group.kind == "KIND_GPU" for group in config.instance_groups
    )


def _shares_batches(config: ModelConfig) -> bool:
    """Whether requests may share a batch, as far as that is known without the model file.

    Dims that are listed without a max_batch_size may be the file's in full, which do not batch.
    """
    if config.max_batch_size is None:
        return not any(tensor.dims for tensor in config.inputs + config.outputs)
    return config.max_batch_size > 0 and config.dynamic_batching is not None


def _listed_ranks(config: ModelConfig) -> dict[str, str]:
    """How many dims are listed of a tensor, as the file counts them.

    Where those are all that it has there the model has no rows (`completion`): the backend, which
    is told before that is known, sees the file.
    """
    return {
        f"{_LISTED_RANK}{each.name}": str(len(each.dims if each.reshape is None else each.reshape))
        for each in config.inputs + config.outputs
        if each.dims
    }


def _accelerator_parameters(config: ModelConfig) -> dict[str, str]:
    accelerators = config.optimization.gpu_accelerators if config.optimization else ()
    if not accelerators:
        return {}
    settings = {
        f"{a.name}.{name}": a.parameters[name] for a in accelerators for name in a.parameters
    }
    return {"accelerators": ",".join(a.name for a in accelerators), **settings}


def row_dims(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The dims that the model file sees of a request of one row, by input; -1 = open."""
    batch = (1,) if config.max_batch_size else ()
    return {
        tensor.name: (*batch, *(tensor.dims if tensor.reshape is None else tensor.reshape))
        for tensor in config.inputs
    }


def tensor_metadata(config: ModelConfig, kind: str) -> tuple[TensorMetadata, ...]:
    """What clients are told of the inputs or outputs (`kind`), batch dimension first."""
    batch = (-1,) if config.max_batch_size else ()
    tensors = config.inputs if kind == "input" else config.outputs
    return tuple(TensorMetadata(t.name, t.datatype, (*batch, *t.dims)) for t in tensors)


def _served(tensor: TensorConfig, labels: tuple[str, ...]) -> ServedTensor:
    return ServedTensor(
        tensor.name, tensor.datatype, tensor.dims, tensor.reshape, tensor.optional, labels
    )


def _queues(batching: DynamicBatching) -> tuple[LevelQueue, ...]:
    """One queue per priority level; a level without a policy of its own has the default one."""
    policies = batching.priority_queue_policies
    levels = range(1, max(batching.priority_levels, 1) + 1)
    return tuple(_queue(policies.get(level, batching.default_queue_policy)) for level in levels)


def _queue(policy: QueueSettings | None) -> LevelQueue:
    """Where no policy is written, a request's own timeout counts; a written one must allow it."""
    if policy is None:
        return LevelQueue()
    return LevelQueue(
        policy.max_queue_size,
        policy.default_timeout_us,
        policy.delay_on_timeout,
        policy.allow_timeout_override,
    )
