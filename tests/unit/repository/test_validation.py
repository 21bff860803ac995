"""Faults that are found without the model file, each by its field."""

import pytest

from penstock.codec import read_config_text
from penstock.repository.validation import config_faults


def faults(text: str) -> list[str]:
    reading = read_config_text(text, "config.pbtxt")
    assert reading.faults == ()
    return config_faults(reading.config, "m")


GOOD = """
name: "m" platform: "onnxruntime_onnx" max_batch_size: 8
input [{ name: "a" data_type: TYPE_FP32 dims: [4, -1] reshape { shape: [2, 2, -1] } },
       { name: "b" data_type: TYPE_STRING dims: [1] optional: true reshape {} },
       { name: "c" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [8, 8, 3] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [2] label_filename: "labels/y.txt" }]
instance_group [{ count: 2 kind: KIND_CPU }, { kind: KIND_MODEL }, {}]
dynamic_batching {
  preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100
  priority_levels: 2 default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 max_queue_size: 9 }
  priority_queue_policy { key: 1 value { allow_timeout_override: true } }
}
optimization { graph { level: 1 } input_pinned_memory { enable: true } priority: PRIORITY_DEFAULT }
model_warmup [{ name: "w" batch_size: 8 inputs { key: "a" value {
  data_type: TYPE_FP32 dims: [4, 1] random_data: true } } }]
response_cache { enable: false }
model_transaction_policy { decoupled: false }
"""


def test_good_configuration_has_no_faults() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name: "other"', "name: expected the name of the directory, 'm', got 'other'"),
        ("max_batch_size: -1", "max_batch_size: expected 0 or more, got -1"),
        ('default_model_filename: "../x"', "default_model_filename: '../x' leads out of"),
        ('default_model_filename: "/x"', "default_model_filename: '/x' leads out of"),
        ("input { dims: 1 }", "input[0].name: expected a name"),
        ('output { name: "a" } output { name: "a" }', "output[1].name: 'a' is listed twice"),
        ('input { name: "a" data_type: 99 }', "input[0].data_type: there is no type 99"),
        ('input { name: "a" dims: 0 }', "input[0].dims: expected positive numbers or -1, got 0"),
        ('input { name: "a" dims: -2 }', "input[0].dims: expected positive numbers or -1, got -2"),
        (
            'input { name: "a" dims: [2, 3] reshape { shape: [5] } }',
            "input[0].reshape.shape: [5] does not hold as many elements as dims [2, 3]",
        ),
        (
            'input { name: "a" dims: [-1, 4] reshape { shape: [2, -1, 2] } }',
            "input[0].reshape.shape: [2, -1, 2] does not hold",
        ),
        (
            'max_batch_size: 0 output { name: "a" dims: 1 reshape {} }',
            "output[0].reshape.shape: an empty shape needs a max_batch_size above 0",
        ),
        ('input { name: "a" format: FORMAT_NCHW dims: 4 }', "input[0].format: FORMAT_NCHW needs"),
        (
            'output { name: "a" label_filename: "../../etc/x" }',
            "output[0].label_filename: '../../etc/x' leads out of the model's directory",
        ),
        ("instance_group { count: -1 }", "instance_group[0].count: expected 0 or more, got -1"),
        ("instance_group { count: 5000 }", "instance_group: 5000 instances are more than 1024"),
        (
            "instance_group { count: 513 gpus: [0, 1] }",
            "instance_group: 1026 instances are more than 1024",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }",
            "dynamic_batching.preferred_batch_size: expected at least 1 and at most 4, got 5",
        ),
        (
            "dynamic_batching { preferred_batch_size: 0 }",
            "dynamic_batching.preferred_batch_size: expected at least 1, got 0",
        ),
        (
            "dynamic_batching { priority_levels: 2 }",
            "dynamic_batching.default_priority_level: expected a level in [1, 2], got 0",
        ),
        (
            "dynamic_batching { default_priority_level: 1 }",
            "dynamic_batching.default_priority_level: 1 needs priority_levels",
        ),
        (
            "dynamic_batching { priority_levels: 999999999999 default_priority_level: 1 }",
            "dynamic_batching.priority_levels: expected at most 256, got 999999999999",
        ),
        (
            "dynamic_batching { preserve_ordering: true priority_levels: 2 "
            "default_priority_level: 1 }",
            "dynamic_batching.priority_levels: expected at most 1 with preserve_ordering, got 2",
        ),
        (
            "dynamic_batching { preserve_ordering: true default_queue_policy { "
            "timeout_action: DELAY default_timeout_microseconds: 5 } }",
            "dynamic_batching.default_queue_policy.timeout_action: DELAY is not allowed with "
            "preserve_ordering",
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 3 value {} } }",
            "dynamic_batching.priority_queue_policy: there is no level 3, priority_levels is 0",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }",
            "dynamic_batching.max_queue_delay_microseconds: 18446744073709551615 is too large",
        ),
        (
            "dynamic_batching { default_queue_policy { "
            "default_timeout_microseconds: 18446744073709551615 } }",
            "dynamic_batching.default_queue_policy.default_timeout_microseconds: the number is",
        ),
        (
            'optimization { graph { level: 1 } } parameters { key: "graph_optimization_level" '
            'value { string_value: "0" } }',
            "optimization.graph.level: parameter graph_optimization_level says the same",
        ),
        (
            "max_batch_size: 2 model_warmup { batch_size: 3 }",
            "model_warmup[0].batch_size: expected",
        ),
        ("model_warmup { count: 99999 }", "model_warmup[0].count: expected at most 10000"),
        (
            'model_warmup { inputs { key: "a" value { dims: 1 zero_data: true } } }',
            "model_warmup[0].inputs['a'].data_type: expected a type",
        ),
        (
            'model_warmup { inputs { key: "a" value { data_type: TYPE_BOOL dims: -1 '
            "zero_data: true } } }",
            "model_warmup[0].inputs['a'].dims: expected positive numbers, got [-1]",
        ),
        (
            'model_warmup { inputs { key: "a" value { data_type: TYPE_BOOL '
            "dims: [1000000, 1000000] zero_data: true } } }",
            "model_warmup[0].inputs['a'].dims: [1000000, 1000000] is too large for a warm-up",
        ),
        (
            'model_warmup { inputs { key: "a" value { data_type: TYPE_BOOL dims: 1 } } }',
            "model_warmup[0].inputs['a']: expected one of zero_data, random_data and input_data",
        ),
        (
            'model_warmup { inputs { key: "a" value { data_type: TYPE_BOOL dims: 1 '
            'input_data_file: "../x" } } }',
            "model_warmup[0].inputs['a'].input_data_file: '../x' leads out of warmup/",
        ),
    ],
)
def test_fault_names_the_field(text: str, fault: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_every_fault_is_reported_at_once() -> None:
    assert len(faults('name: "x" max_batch_size: -1 input { dims: 0 }')) == 4
