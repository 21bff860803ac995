"""A repository as Triton's users write them for its openvino backend: models and config.pbtxt.

Configurations are of the kinds that its README shows; each model is small and computes something a
test can check.
"""

from pathlib import Path

from tests.support.models import onnx_files, openvino_files

LATENCY = """
backend: "openvino"
parameters: [
{
   key: "NUM_STREAMS"
   value: {
     string_value: "1"
   }
},
{
   key: "PERFORMANCE_HINT"
   value: {
     string_value: "LATENCY"
   }
}
]
"""

THROUGHPUT = """
name: "throughput"
backend: "openvino"
max_batch_size: 16
input [ { name: "INPUT", data_type: TYPE_FP32, dims: [ 3 ] } ]
output [ { name: "OUTPUT", data_type: TYPE_FP32, dims: [ 3 ] } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
parameters: { key: "NUM_STREAMS" value: { string_value: "2" } }
parameters: { key: "PERFORMANCE_HINT" value: { string_value: "THROUGHPUT" } }
parameters: { key: "INFERENCE_NUM_THREADS" value: { string_value: "2" } }
parameters: { key: "COMPILATION_NUM_THREADS" value: { string_value: "1" } }
parameters: { key: "SKIP_OV_DYNAMIC_BATCHSIZE" value: { string_value: "YES" } }
parameters: { key: "ENABLE_BATCH_PADDING" value: { string_value: "YES" } }
parameters: { key: "TARGET_DEVICE" value: { string_value: "CPU" } }
"""

SAVED_MODEL = """
backend: "openvino"
input [
  {
    name: "INPUT"
    data_type: TYPE_FP32
    dims: [-1, 3 ]
  }
]
output [
  {
    name: "OUTPUT"
    data_type: TYPE_FP32
    dims: [-1, 3]
  }
]
default_model_filename: "model.saved_model"
"""

BF16 = """
backend: "openvino"
max_batch_size: 8
parameters: { key: "HINT_BF16" value: { string_value: "YES" } }
"""

RESHAPED = """
backend: "openvino"
max_batch_size: 8
input [
  {
    name: "INPUT"
    data_type: TYPE_FP32
    dims: [ 5 ]
  }
]
output [
  {
    name: "OUTPUT"
    data_type: TYPE_FP32
    dims: [ 5 ]
  }
]
parameters: {
key: "RESHAPE_IO_LAYERS"
value: {
string_value:"yes"
}
}
"""


def write_repository(repository: Path) -> list[str]:
    """Writes all of them; returns their names."""
    openvino_files.write_model(repository, "bf16", config=BF16)
    openvino_files.write_model(repository, "ir", config=LATENCY)
    openvino_files.write_model(repository, "saved_model", "model.saved_model", config=SAVED_MODEL)
    openvino_files.write_model(repository, "throughput", config=THROUGHPUT)
    for name, filename in (("paddle", "model.pdmodel"), ("tflite", "model.tflite")):
        config = f'{LATENCY}default_model_filename: "{filename}"\n'
        openvino_files.write_model(repository, name, filename, config=config)
    config = f'{LATENCY}default_model_filename: "model.onnx"\n'
    onnx_files.write_model(repository, "onnx", onnx_files.simple("FP32"), config=config)
    fixed = openvino_files.Ir()
    fixed.parameter("INPUT", "f32", "1,3")
    fixed.layer("Relu", ["INPUT"], "OUTPUT")
    fixed.write(repository / "reshaped" / "1", ["OUTPUT"])
    (repository / "reshaped" / "config.pbtxt").write_text(RESHAPED)
    return ["bf16", "ir", "onnx", "paddle", "reshaped", "saved_model", "tflite", "throughput"]
