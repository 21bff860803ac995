"""A repository as Triton's users write them for its onnxruntime backend: models and config.pbtxt.

Each model is small and computes something a test can check; names, shapes and configurations are
those of the usual kinds: an image classifier, a transformer, text, tables.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.support.models import onnx_files

DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
    reshape { shape: [ 1, 3, 8, 8 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 3 ]
    reshape { shape: [ 1, 3, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""

RESNET = """
# Exported with a dynamic batch axis.
name: "resnet"
backend: "onnxruntime"
max_batch_size: 32
input [ { name: "input.1", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, 8, 8 ] } ]
output [ { name: "output", data_type: TYPE_FP32, dims: [ 3 ] } ]
instance_group [ { count: 2, kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8, 16, 32 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
}
optimization {
  graph { level: 1 }
  input_pinned_memory { enable: false }
}
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "inter_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
parameters { key: "memory.enable_memory_arena_shrinkage" value: { string_value: "cpu:0" } }
model_warmup [
  {
    name: "one image"
    batch_size: 1
    inputs {
      key: "input.1"
      value: { data_type: TYPE_FP32, dims: [ 3, 8, 8 ], random_data: true }
    }
  },
  {
    name: "full batch"
    batch_size: 32
    count: 2
    inputs {
      key: "input.1"
      value: { data_type: TYPE_FP32, dims: [ 3, 8, 8 ], zero_data: true }
    }
  }
]
"""

BERT = """
name: "bert"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 16
input: [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },  # variable length
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output: [
  { name: 'logits' data_type: TYPE_INT64 dims: [ -1 ] }
]
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 60000000
    allow_timeout_override: true
    max_queue_size: 256
  }
  priority_queue_policy {
    key: 1
    value: { timeout_action: DELAY, max_queue_size: 512 }
  }
}
version_policy: { latest { num_versions: 2 } }
model_transaction_policy { decoupled: false }
response_cache { enable: false }
"""

TEXT = """
backend: "onnxruntime"
max_batch_size: 0
default_model_filename: "words.onnx"
input { name: "INPUT0" data_type: TYPE_STRING dims: [ -1, 2 ] }
output { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1, 2 ] }
version_policy: { specific: { versions: [ 1, 3 ] } }
"""

MINIMAL = """
backend: "onnxruntime"
max_batch_size: 64
instance_group [ { kind: KIND_CPU } ]
"""


def write_repository(repository: Path) -> list[str]:
    """Writes all of them; returns their names."""
    folder = onnx_files.write_model(
        repository, "densenet_onnx", channel_means([1, 3, 8, 8], [1, 3, 1, 1]), config=DENSENET
    )
    (folder / "densenet_labels.txt").write_text("red\ngreen\nblue\n")
    means = channel_means(["N", 3, 8, 8], ["N", 3], "input.1", "output")
    onnx_files.write_model(repository, "resnet", means, config=RESNET)
    for version in (1, 2, 10):
        onnx_files.write_model(repository, "bert", masked(version), config=BERT, version=version)
    for version in (1, 2, 3):
        words = onnx_files.identity("BYTES", ["rows", 2])
        folder = onnx_files.write_model(repository, "text", words, config=TEXT, version=version)
        (folder / str(version) / "model.onnx").rename(folder / str(version) / "words.onnx")
    onnx_files.write_model(repository, "minimal", onnx_files.simple("FP32"), config=MINIMAL)
    (repository / "resnet" / "README.md").write_text("Files beside the versions are nobody's.\n")
    (repository / "resnet" / "configs").mkdir()
    return ["bert", "densenet_onnx", "minimal", "resnet", "text"]


def channel_means(
    dims: Sequence[int | str],
    out: Sequence[int | str],
    source: str = "data_0",
    target: str = "fc6_1",
) -> onnx.ModelProto:
    """The mean of each channel of an image, in place of what a classifier would say."""
    keep = int(len(out) == len(dims))
    node = helper.make_node("ReduceMean", [source], [target], axes=[2, 3], keepdims=keep)
    return _model(
        [node],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, list(dims))],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, list(out))],
    )


def masked(factor: int) -> onnx.ModelProto:
    """input_ids x attention_mask x factor; both INT64 [batch,length]."""
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "logits")
    ]
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        helper.make_node("Mul", ["kept", "factor"], ["logits"]),
    ]
    factors = [numpy_helper.from_array(np.array([factor], np.int64), "factor")]
    return _model(nodes, tensors[:2], tensors[2:], factors)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=onnx_files.IR_VERSION)
