"""config.pbtxt and JSON in, ModelConfig out, and back."""

import json
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2

from penstock import codec
from penstock.errors import ConfigError

FULL = """
name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime"
version_policy { specific { versions: [1, 3] } } max_batch_size: 8
input [{ name: "a" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, -1, -1] },
       { name: "b" data_type: TYPE_STRING dims: 4 reshape { shape: [2, 2] } optional: true }]
output [{ name: "y" data_type: TYPE_BF16 dims: 1 label_filename: "l.txt" reshape {} }]
instance_group [{ name: "g" count: 2 kind: KIND_CPU }]
default_model_filename: "net.onnx"
optimization { graph { level: -1 } input_pinned_memory { enable: true } output_pinned_memory {} }
dynamic_batching {
  preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 preserve_ordering: true
  priority_levels: 2 default_priority_level: 1
  default_queue_policy { max_queue_size: 9 }
  priority_queue_policy { key: 2 value { timeout_action: DELAY default_timeout_microseconds: 5
    allow_timeout_override: true } }
}
parameters { key: "k" value { string_value: "v" } }
model_transaction_policy { decoupled: true }
model_warmup [{ name: "w" batch_size: 2 count: 3
  inputs { key: "a" value { data_type: TYPE_FP32 dims: [3, 1, 1] zero_data: true } }
  inputs { key: "b" value { data_type: TYPE_STRING dims: 4 input_data_file: "b" } } }]
"""


def read(text: str) -> codec.ConfigReading:
    return codec.read_config_text(text, "config.pbtxt")


def echo(config: codec.ModelConfig) -> Any:
    data = codec.encode_model_config(config)
    return service_pb2.ModelConfigResponse.FromString(data).config


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "version_policy { all {} }",
        "version_policy { latest { num_versions: 2 } }",
        "optimization {}",
        "dynamic_batching {}",
        "model_transaction_policy {}",
        "",
    ],
)
def test_supported_configuration_survives_the_round_trip(text: str) -> None:
    reading = read(text)
    assert reading.faults == ()
    assert echo(reading.config) == text_format.Parse(text, model_config_pb2.ModelConfig())


def test_json_reads_as_the_text_does() -> None:
    message = text_format.Parse(FULL, model_config_pb2.ModelConfig())
    for snake in (True, False):
        text = json_format.MessageToJson(message, preserving_proto_field_name=snake)
        assert codec.read_config_json(text, "x") == read(FULL)


def test_json_of_a_completed_triton_configuration_is_accepted() -> None:
    text = {
        "name": "m",
        "platform": "onnxruntime_onnx",
        "versionPolicy": {"latest": {"numVersions": 1}},
        "optimization": {
            "priority": "PRIORITY_DEFAULT",
            "inputPinnedMemory": {"enable": True},
            "outputPinnedMemory": {"enable": True},
            "gatherKernelBufferThreshold": 0,
            "eagerBatching": False,
        },
        "instanceGroup": [
            {"name": "m", "kind": "KIND_CPU", "count": 1, "gpus": [], "passive": False}
        ],
        "modelOperations": {"opLibraryFilename": []},
        "modelTransactionPolicy": {"decoupled": False},
        "responseCache": {"enable": False},
        "metricTags": {},
        "modelWarmup": [],
    }
    assert codec.read_config_json(json.dumps(text), "x").faults == ()


UNSUPPORTED = [
    ("sequence_batching {}", "sequence_batching"),
    ("ensemble_scheduling {}", "ensemble_scheduling"),
    ("model_repository_agents { agents { name: 'checksum' } }", "model_repository_agents"),
    ("response_cache { enable: true }", "response_cache"),
    ("cc_model_filenames { key: '8.9' value: 'x' }", "cc_model_filenames"),
    ("metric_tags { key: 'a' value: 'b' }", "metric_tags"),
    ("model_metrics { metric_control {} }", "model_metrics"),
    ("batch_input { target_name: 'x' }", "batch_input"),
    ("batch_output { target_name: 'x' }", "batch_output"),
    ("model_operations { op_library_filename: 'x.so' }", "model_operations"),
    ("runtime: 'x'", "runtime"),
    ("instance_group {} instance_group { profile: '0' }", "instance_group[1].profile"),
    ("instance_group { host_policy: 'x' }", "instance_group[0].host_policy"),
    ("instance_group { profile: '0' }", "instance_group[0].profile"),
    ("instance_group { passive: true }", "instance_group[0].passive"),
    ("instance_group { secondary_devices {} }", "instance_group[0].secondary_devices"),
    (
        "instance_group { rate_limiter { resources { name: 'r' count: 1 } } }",
        "instance_group[0].rate_limiter",
    ),
    ("input { allow_ragged_batch: true }", "input[0].allow_ragged_batch"),
    ("input { is_shape_tensor: true }", "input[0].is_shape_tensor"),
    ("input { is_non_linear_format_io: true }", "input[0].is_non_linear_format_io"),
    ("output { is_shape_tensor: true }", "output[0].is_shape_tensor"),
    ("optimization { priority: PRIORITY_MAX }", "optimization.priority"),
    ("optimization { cuda { graphs: true } }", "optimization.cuda"),
    (
        "optimization { execution_accelerators { cpu_execution_accelerator "
        "{ name: 'openvino' } } }",
        "optimization.execution_accelerators.cpu_execution_accelerator",
    ),
    ("optimization { eager_batching: true }", "optimization.eager_batching"),
]


@pytest.mark.parametrize(("text", "field"), UNSUPPORTED)
def test_unsupported_field_is_refused_by_name(text: str, field: str) -> None:
    assert read(text).faults == (f"config.pbtxt: field '{field}' is not supported",)


@pytest.mark.parametrize(
    "text",
    [
        "response_cache {}",
        "model_transaction_policy { decoupled: false }",
        "optimization { cuda { graphs: false } execution_accelerators {} }",
        "instance_group { rate_limiter {} }",
        "model_operations {}",
        "model_repository_agents {}",
    ],
)
def test_unsupported_field_at_its_default_is_accepted(text: str) -> None:
    assert read(text).faults == ()


def test_devices_of_instance_groups_are_read_and_written() -> None:
    reading = read("instance_group { kind: KIND_GPU gpus: [1, 0] count: 2 }")
    (group,) = reading.config.instance_groups
    assert (reading.faults, group.kind, group.gpus) == ((), "KIND_GPU", (1, 0))
    (written,) = echo(reading.config).instance_group
    assert (list(written.gpus), written.count) == ([1, 0], 2)


def test_accelerators_of_gpus_are_read_and_written() -> None:
    reading = read(
        """optimization { execution_accelerators { gpu_execution_accelerator {
        name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } } } }"""
    )
    assert reading.faults == ()
    (written,) = echo(reading.config).optimization.execution_accelerators.gpu_execution_accelerator
    assert (written.name, dict(written.parameters)) == ("tensorrt", {"precision_mode": "FP16"})


def test_every_field_of_the_schema_is_tried_here() -> None:
    """A new field of the protocol needs a case above, as supported or as refused."""
    supported = {field.name for field, _ in echo(read(FULL).config).ListFields()}
    refused = {field.partition("[")[0].partition(".")[0] for _, field in UNSUPPORTED}
    assert supported | refused == set(model_config_pb2.ModelConfig.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name: "m"\nfoo: 1', 'config.pbtxt:2: Message type "inference.ModelConfig" has no field'),
        ("max_batch_size: x", "config.pbtxt:1: "),
        ('name: "a"\nname: "b"', "config.pbtxt:2: "),
        ("input [", "config.pbtxt:1: "),
        ("input { data_type: TYPE_FLOAT }", "config.pbtxt:1: "),
        ("max_batch_size: 99999999999", "config.pbtxt:1: "),
    ],
)
def test_syntax_error_has_its_line(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    (found,) = caught.value.faults
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", None),
        ("max_batch_size: 0", 0),
        ("name: 'it is # max' max_batch_size : 0", 0),
        ("name: 'max_batch_size: 0'", None),
        (r"name: 'a\'max_batch_size: 0'", None),
        ("# max_batch_size: 0\n", None),
        ("max_batch_size: 3", 3),
    ],
)
def test_batch_size_of_zero_is_told_from_none(text: str, written: int | None) -> None:
    assert read(text).config.max_batch_size == written


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "null", "[]", '"x"', '{"input": 1}', '{"name": 3}', '{"maxBatchSize": 1e99}']
    + ['{"parameters": [1]}', '{"dynamicBatching": {"priorityQueuePolicy": {"x": {}}}}']
    + ["[" * 100_000, '{"a":' * 100_000, '{"input": [' * 200 + "]}" * 200],
)
def test_bad_json_is_a_fault_of_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        codec.read_config_json(text, "x")
    (fault,) = caught.value.faults
    assert fault.startswith("x: ") and "\n" not in fault


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([f.name for f in model_config_pb2.ModelConfig.DESCRIPTOR.fields])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(FIELDS, VALUES))
def test_json_of_any_shape_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        reading = codec.read_config_json(json.dumps(fields), "x")
    except ConfigError:
        return
    codec.encode_model_config(reading.config)


def test_json_has_triton_names_numbers_and_defaults() -> None:
    text = """
        backend: "python"
        input { name: "x" data_type: TYPE_FP32 dims: 9007199254740993 }
        dynamic_batching { max_queue_delay_microseconds: 5 }
        parameters { key: "a" value: { string_value: "b" } }
    """
    fields = json.loads(codec.encode_config_json(codec.read_config_text(text, "f").config))
    assert "max_batch_size" not in fields  # nobody said
    assert fields["output"] == []
    (tensor,) = fields["input"]
    assert tensor["data_type"] == "TYPE_FP32"
    assert tensor["dims"] == [9007199254740993]
    assert tensor["optional"] is False
    assert "reshape" not in tensor
    assert fields["dynamic_batching"]["max_queue_delay_microseconds"] == 5
    assert fields["parameters"] == {"a": {"string_value": "b"}}


def test_json_has_a_written_batch_size() -> None:
    config = codec.read_config_text("max_batch_size: 0", "f").config
    assert json.loads(codec.encode_config_json(config))["max_batch_size"] == 0
