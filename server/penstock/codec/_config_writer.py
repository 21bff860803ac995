"""ModelConfig -> message for the ModelConfig RPC, and -> JSON for models that are code."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message

from penstock._messages import pb
from penstock.codec._records import (
    DynamicBatching,
    InstanceGroup,
    ModelConfig,
    Optimization,
    QueueSettings,
    TensorConfig,
    VersionPolicy,
    Warmup,
    WarmupInput,
)


def config_message(config: ModelConfig) -> pb.ModelConfig:
    """The message for a configuration; optional parts stay unset, for presence has a meaning."""
    message = pb.ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        max_batch_size=config.max_batch_size or 0,
        input=[_input(tensor) for tensor in config.inputs],
        output=[_output(tensor) for tensor in config.outputs],
        instance_group=[_instance_group(group) for group in config.instance_groups],
        default_model_filename=config.default_model_filename,
        model_warmup=[_warmup(warmup) for warmup in config.warmups],
    )
    if config.version_policy is not None:
        message.version_policy.CopyFrom(_version_policy(config.version_policy))
    if config.dynamic_batching is not None:
        message.dynamic_batching.CopyFrom(_dynamic_batching(config.dynamic_batching))
    if config.optimization is not None:
        message.optimization.CopyFrom(_optimization(config.optimization))
    if config.decoupled is not None:
        message.model_transaction_policy.decoupled = config.decoupled
        message.model_transaction_policy.SetInParent()
    for key, value in config.parameters.items():
        message.parameters[key].string_value = value
    return message


def encode_config_json(config: ModelConfig) -> str:
    """The configuration as Triton tells it to a Python model: JSON, names as in config.pbtxt.

    Fields without presence are all there, with their defaults; but for max_batch_size, which is
    left out where the configuration does not say.
    """
    fields = _plain(config_message(config))
    if config.max_batch_size is None:
        del fields["max_batch_size"]
    return json.dumps(fields)


def _plain(message: Message) -> dict[str, Any]:
    """Plain values: numbers as numbers, enumerators by name; messages that are unset left out."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of_value = field.message_type.fields_by_name["value"]
            fields[field.name] = {str(key): _plain_value(of_value, value[key]) for key in value}
        elif field.is_repeated:
            fields[field.name] = [_plain_value(field, item) for item in value]
        else:
            fields[field.name] = _plain_value(field, value)
    return fields


def _plain_value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    if field.enum_type is not None:
        number = field.enum_type.values_by_number.get(value)
        return value if number is None else number.name
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def datatype_number(datatype: str) -> int:
    """The DataType enumerator of a wire name; 0 for the empty name."""
    if not datatype:
        return 0
    return pb.DataType.Value("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")


def _reshape(tensor: TensorConfig) -> pb.ModelTensorReshape | None:
    return None if tensor.reshape is None else pb.ModelTensorReshape(shape=tensor.reshape)


def _input(tensor: TensorConfig) -> pb.ModelInput:
    return pb.ModelInput(
        name=tensor.name,
        data_type=datatype_number(tensor.datatype),
        format=pb.ModelInput.Format.Value(tensor.layout),
        dims=tensor.dims,
        reshape=_reshape(tensor),
        optional=tensor.optional,
    )


def _output(tensor: TensorConfig) -> pb.ModelOutput:
    return pb.ModelOutput(
        name=tensor.name,
        data_type=datatype_number(tensor.datatype),
        dims=tensor.dims,
        reshape=_reshape(tensor),
        label_filename=tensor.label_filename,
    )


def _instance_group(group: InstanceGroup) -> pb.ModelInstanceGroup:
    kind = pb.ModelInstanceGroup.Kind.Value(group.kind)
    return pb.ModelInstanceGroup(name=group.name, count=group.count, kind=kind, gpus=group.gpus)


def _version_policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.kind == "all":
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    if policy.kind == "specific":
        specific = pb.ModelVersionPolicy.Specific(versions=policy.versions)
        return pb.ModelVersionPolicy(specific=specific)
    latest = pb.ModelVersionPolicy.Latest(num_versions=policy.num_versions)
    return pb.ModelVersionPolicy(latest=latest)


def _queue_policy(policy: QueueSettings) -> pb.ModelQueuePolicy:
    action = "DELAY" if policy.delay_on_timeout else "REJECT"
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.TimeoutAction.Value(action),
        default_timeout_microseconds=policy.default_timeout_us,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )


def _dynamic_batching(batching: DynamicBatching) -> pb.ModelDynamicBatching:
    default = batching.default_queue_policy
    return pb.ModelDynamicBatching(
        preferred_batch_size=batching.preferred_batch_sizes,
        max_queue_delay_microseconds=batching.max_queue_delay_us,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=None if default is None else _queue_policy(default),
        priority_queue_policy={
            level: _queue_policy(policy)
            for level, policy in batching.priority_queue_policies.items()
        },
    )


def _optimization(optimization: Optimization) -> pb.ModelOptimizationPolicy:
    policy = pb.ModelOptimizationPolicy()
    if optimization.graph_level is not None:
        policy.graph.level = optimization.graph_level
        policy.graph.SetInParent()
    for field in ("input_pinned_memory", "output_pinned_memory"):
        value = getattr(optimization, field)
        if value is not None:
            getattr(policy, field).enable = value
            getattr(policy, field).SetInParent()
    for each in optimization.gpu_accelerators:
        policy.execution_accelerators.gpu_execution_accelerator.add(
            name=each.name, parameters=each.parameters
        )
    return policy


def _warmup_input(tensor: WarmupInput) -> pb.ModelWarmup.Input:
    message = pb.ModelWarmup.Input(data_type=datatype_number(tensor.datatype), dims=tensor.dims)
    if tensor.source == "zero":
        message.zero_data = True
    elif tensor.source == "random":
        message.random_data = True
    elif tensor.source == "file":
        message.input_data_file = tensor.data_file
    return message


def _warmup(warmup: Warmup) -> pb.ModelWarmup:
    return pb.ModelWarmup(
        name=warmup.name,
        batch_size=warmup.batch_size,
        count=warmup.count,
        inputs={name: _warmup_input(tensor) for name, tensor in warmup.inputs.items()},
    )
