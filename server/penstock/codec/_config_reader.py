"""Text or JSON -> ModelConfig. A field that is not supported is a fault by name, never ignored.

Support is an allow list (`_SUPPORTED`): a field that the protocol gains is refused until it works.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from penstock._messages import POOL, pb
from penstock.codec._records import (
    Accelerator,
    ConfigReading,
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
from penstock.errors import ConfigError

_SUPPORTED: dict[str, frozenset[str]] = {
    "ModelConfig": frozenset(
        """name platform backend version_policy max_batch_size input output instance_group
        default_model_filename dynamic_batching optimization parameters model_warmup
        model_transaction_policy""".split()
    ),
    "ModelInput": frozenset("name data_type format dims reshape optional".split()),
    "ModelOutput": frozenset("name data_type dims label_filename reshape".split()),
    "ModelInstanceGroup": frozenset("name count kind gpus".split()),
    "ModelOptimizationPolicy": frozenset(
        "graph execution_accelerators input_pinned_memory output_pinned_memory".split()
    ),
    "ExecutionAccelerators": frozenset({"gpu_execution_accelerator"}),
}
"""Fields that work, by message; a message that is not listed is supported whole."""

_MEANINGFUL_WHEN_EMPTY = frozenset({"sequence_batching", "ensemble_scheduling"})
"""Messages whose mere presence says something."""

# The text format has no presence for a plain number, but a written 0 is not the same as none.
_STRINGS_AND_COMMENTS = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*""")
_BATCH_SIZE = re.compile(r"\bmax_batch_size\s*:")


def read_config_text(text: str, source: str) -> ConfigReading:
    """Reads a `config.pbtxt`.

    Args:
        text: its contents.
        source: what to call it in faults.

    Raises:
        ConfigError: it is not in the text format of ModelConfig; the fault has the line.
    """
    from google.protobuf import text_format  # only where a model has a configuration

    message = pb.ModelConfig()
    try:
        text_format.Parse(text, message, descriptor_pool=POOL)
    except text_format.ParseError as error:
        line = f":{error.GetLine()}" if error.GetLine() else ""
        detail = re.sub(r"^\d+:\d+ : ", "", str(error))
        raise ConfigError([f"{source}{line}: {detail}"]) from error
    bare = _STRINGS_AND_COMMENTS.sub("", text)
    return _read(message, source, bool(_BATCH_SIZE.search(bare)))


def read_config_json(text: str, source: str) -> ConfigReading:
    """Reads a configuration in JSON, as the `config` parameter of a load brings it.

    Args:
        text: a JSON object; names of fields as in config.pbtxt or in camel case.
        source: what to call it in faults.

    Raises:
        ConfigError: it is not the JSON form of ModelConfig.
    """
    import json

    from google.protobuf import json_format

    message = pb.ModelConfig()
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ConfigError([f"{source}: expected a JSON object, got {type(fields).__name__}"])
        json_format.ParseDict(fields, message, descriptor_pool=POOL)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        detail = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError([f"{source}: not a model configuration in JSON: {detail}"]) from error
    return _read(message, source, bool({"max_batch_size", "maxBatchSize"} & fields.keys()))


def _read(message: pb.ModelConfig, source: str, has_batch_size: bool) -> ConfigReading:
    faults = [f"{source}: {fault}" for fault in _unsupported_fields(message, "")]
    return ConfigReading(_model_config(message, has_batch_size), tuple(faults))


def _unsupported_fields(message: Message, path: str) -> Iterator[str]:
    supported = _SUPPORTED.get(message.DESCRIPTOR.name)
    for field, value in message.ListFields():
        here = f"{path}{field.name}"
        if supported is not None and field.name not in supported:
            if field.name in _MEANINGFUL_WHEN_EMPTY or not _is_default(value):
                yield f"field '{here}' is not supported"
        elif isinstance(value, Message):
            yield from _unsupported_fields(value, f"{here}.")
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for index, item in enumerate(value):
                yield from _unsupported_fields(item, f"{here}[{index}].")


def _is_default(value: Any) -> bool:
    """Whether a field that is present says no more than its absence."""
    if not isinstance(value, Message):
        return False  # ListFields leaves out scalars at their default and empty lists
    return all(_is_default(inner) for _, inner in value.ListFields())


def _model_config(message: pb.ModelConfig, has_batch_size: bool) -> ModelConfig:
    has_batch_size = has_batch_size or message.max_batch_size != 0
    return ModelConfig(
        name=message.name,
        platform=message.platform,
        backend=message.backend,
        version_policy=_version_policy(message.version_policy),
        max_batch_size=message.max_batch_size if has_batch_size else None,
        inputs=tuple(_input(tensor) for tensor in message.input),
        outputs=tuple(_output(tensor) for tensor in message.output),
        instance_groups=tuple(
            InstanceGroup(
                g.name, g.count, _enum_name(pb.ModelInstanceGroup.Kind, g.kind), tuple(g.gpus)
            )
            for g in message.instance_group
        ),
        default_model_filename=message.default_model_filename,
        dynamic_batching=(
            _dynamic_batching(message.dynamic_batching)
            if message.HasField("dynamic_batching")
            else None
        ),
        optimization=(
            _optimization(message.optimization) if message.HasField("optimization") else None
        ),
        parameters={key: value.string_value for key, value in sorted(message.parameters.items())},
        warmups=tuple(_warmup(warmup) for warmup in message.model_warmup),
        decoupled=(
            message.model_transaction_policy.decoupled
            if message.HasField("model_transaction_policy")
            else None
        ),
    )


def _enum_name(enum: Any, number: int) -> str:
    """The enumerator's name; proto3 lets a file say a number that has none."""
    return enum.Name(number) if number in enum.values() else str(number)


def _datatype(number: int) -> str:
    name = _enum_name(pb.DataType, number).removeprefix("TYPE_")
    return {"INVALID": "", "STRING": "BYTES"}.get(name, name)


def _reshape(tensor: pb.ModelInput | pb.ModelOutput) -> tuple[int, ...] | None:
    return tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None


def _input(tensor: pb.ModelInput) -> TensorConfig:
    return TensorConfig(
        name=tensor.name,
        datatype=_datatype(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=_reshape(tensor),
        optional=tensor.optional,
        layout=_enum_name(pb.ModelInput.Format, tensor.format),
    )


def _output(tensor: pb.ModelOutput) -> TensorConfig:
    return TensorConfig(
        name=tensor.name,
        datatype=_datatype(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=_reshape(tensor),
        label_filename=tensor.label_filename,
    )


def _version_policy(message: pb.ModelVersionPolicy) -> VersionPolicy | None:
    choice = message.WhichOneof("policy_choice")
    if choice == "latest":
        return VersionPolicy("latest", num_versions=message.latest.num_versions or 1)
    if choice == "all":
        return VersionPolicy("all")
    if choice == "specific":
        return VersionPolicy("specific", versions=tuple(message.specific.versions))
    return None


def _queue_settings(message: pb.ModelQueuePolicy) -> QueueSettings:
    return QueueSettings(
        delay_on_timeout=message.timeout_action == pb.ModelQueuePolicy.DELAY,
        default_timeout_us=message.default_timeout_microseconds,
        allow_timeout_override=message.allow_timeout_override,
        max_queue_size=message.max_queue_size,
    )


def _dynamic_batching(message: pb.ModelDynamicBatching) -> DynamicBatching:
    has_default = message.HasField("default_queue_policy")
    return DynamicBatching(
        preferred_batch_sizes=tuple(message.preferred_batch_size),
        max_queue_delay_us=message.max_queue_delay_microseconds,
        preserve_ordering=message.preserve_ordering,
        priority_levels=message.priority_levels,
        default_priority_level=message.default_priority_level,
        default_queue_policy=(
            _queue_settings(message.default_queue_policy) if has_default else None
        ),
        priority_queue_policies={
            level: _queue_settings(policy)
            for level, policy in sorted(message.priority_queue_policy.items())
        },
    )


def _optimization(message: pb.ModelOptimizationPolicy) -> Optimization:
    def pinned(field: str) -> bool | None:
        return getattr(message, field).enable if message.HasField(field) else None

    return Optimization(
        graph_level=message.graph.level if message.HasField("graph") else None,
        input_pinned_memory=pinned("input_pinned_memory"),
        output_pinned_memory=pinned("output_pinned_memory"),
        gpu_accelerators=tuple(
            Accelerator(each.name, dict(sorted(each.parameters.items())))
            for each in message.execution_accelerators.gpu_execution_accelerator
        ),
    )


def _warmup_input(message: pb.ModelWarmup.Input) -> WarmupInput:
    choice = message.WhichOneof("input_data_type")
    dims = tuple(message.dims)
    datatype = _datatype(message.data_type)
    if choice == "input_data_file":
        return WarmupInput(datatype, dims, "file", message.input_data_file)
    if choice == "zero_data" and message.zero_data:
        return WarmupInput(datatype, dims, "zero")
    if choice == "random_data" and message.random_data:
        return WarmupInput(datatype, dims, "random")
    return WarmupInput(datatype, dims, "")


def _warmup(message: pb.ModelWarmup) -> Warmup:
    inputs: Iterable[tuple[str, pb.ModelWarmup.Input]] = sorted(
        message.inputs.items(), key=lambda item: item[0]
    )
    return Warmup(
        name=message.name,
        inputs={name: _warmup_input(tensor) for name, tensor in inputs},
        batch_size=message.batch_size,
        count=message.count,
    )
