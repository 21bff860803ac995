"""Small ONNX models, each with the behaviour its name says, for tests against a running server.

Every builder returns a ModelProto; `write_model` lays one out in a repository. Names, shapes and
datatypes are those of Triton's examples where there is one, so that public example clients run.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATATYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""The protocol's datatypes and what ONNX calls them."""

Dims = Sequence[int | str | None]
"""Dimensions: a size, a symbol, or None for one without a name."""

OPSETS = [("", 17), ("ai.onnx.ml", 3)]
IR_VERSION = 8


def write_model(
    repository: Path,
    name: str,
    model: onnx.ModelProto,
    *,
    config: str | None = None,
    version: int = 1,
) -> Path:
    """Lays `model` out as <repository>/<name>/<version>/model.onnx and returns the model's folder.

    Args:
        repository: the folder of models.
        name: the model's name.
        model: what to write.
        config: text of config.pbtxt; none is written without it.
        version: the version's number.
    """
    folder = repository / name
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    (folder / str(version) / "model.onnx").write_bytes(model.SerializeToString())
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


def simple(datatype: str = "INT32") -> onnx.ModelProto:
    """INPUT0, INPUT1 [batch,16] -> OUTPUT0 their sum, OUTPUT1 their difference.

    BYTES means decimal numbers as text, as in Triton's `simple_string`.
    """
    inputs = [_tensor(f"INPUT{i}", datatype, ["batch", 16]) for i in range(2)]
    outputs = [_tensor(f"OUTPUT{i}", datatype, ["batch", 16]) for i in range(2)]
    nodes = [
        _cast("INPUT0", "a", "INT32"),
        _cast("INPUT1", "b", "INT32"),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        _cast("sum", "OUTPUT0", datatype),
        _cast("difference", "OUTPUT1", datatype),
    ]
    return _model(nodes, inputs, outputs)


def identity(datatype: str, dims: Dims = ("batch", "width")) -> onnx.ModelProto:
    """INPUT0 -> OUTPUT0, unchanged. Fixed `dims` make a model without a batch dimension."""
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    return _model(nodes, [_tensor("INPUT0", datatype, dims)], [_tensor("OUTPUT0", datatype, dims)])


def add_constant(constant: float) -> onnx.ModelProto:
    """INPUT0 FP32 [batch,width] + a constant -> OUTPUT0: the answer tells which file was loaded."""
    return _model(
        [helper.make_node("Add", ["INPUT0", "constant"], ["OUTPUT0"])],
        [_tensor("INPUT0", "FP32", ["batch", "width"])],
        [_tensor("OUTPUT0", "FP32", ["batch", "width"])],
        [numpy_helper.from_array(np.array([constant], np.float32), "constant")],
    )


def row_sums() -> onnx.ModelProto:
    """INPUT0 FP32 [batch,height,width] -> OUTPUT0 [batch,height], the sum of each row."""
    nodes = [helper.make_node("ReduceSum", ["INPUT0", "axis"], ["OUTPUT0"], keepdims=0)]
    return _model(
        nodes,
        [_tensor("INPUT0", "FP32", ["batch", "height", "width"])],
        [_tensor("OUTPUT0", "FP32", ["batch", "height"])],
        [numpy_helper.from_array(np.array([2], np.int64), "axis")],
    )


def optional_scale() -> onnx.ModelProto:
    """INPUT0 FP32 [batch,width] x SCALE FP32 [1] -> OUTPUT0; SCALE is 2 where it is left out."""
    return _model(
        [helper.make_node("Mul", ["INPUT0", "SCALE"], ["OUTPUT0"])],
        [_tensor("INPUT0", "FP32", ["batch", "width"]), _tensor("SCALE", "FP32", [1])],
        [_tensor("OUTPUT0", "FP32", ["batch", "width"])],
        [numpy_helper.from_array(np.array([2.0], np.float32), "SCALE")],
    )


def external_bias(location: str, width: int = 4) -> onnx.ModelProto:
    """INPUT0 FP32 [batch,width] + a bias that lies in the file `location` -> OUTPUT0.

    Write `external_bias_data` there. A `location` outside the model's folder must be refused.
    """
    bias = TensorProto(name="bias", data_type=TensorProto.FLOAT, dims=[width])
    bias.data_location = TensorProto.EXTERNAL
    bias.external_data.add(key="location", value=location)
    return _model(
        [helper.make_node("Add", ["INPUT0", "bias"], ["OUTPUT0"])],
        [_tensor("INPUT0", "FP32", ["batch", width])],
        [_tensor("OUTPUT0", "FP32", ["batch", width])],
        [bias],
    )


def external_bias_data(width: int = 4) -> bytes:
    """The bias of `external_bias`: 1, 2, 3 and so on."""
    return np.arange(1, width + 1, dtype=np.float32).tobytes()


def nonzero() -> onnx.ModelProto:
    """INPUT0 FP32 [width] -> OUTPUT0 INT64 [1,found]: a shape no one knows before the run."""
    nodes = [helper.make_node("NonZero", ["INPUT0"], ["OUTPUT0"])]
    return _model(
        nodes, [_tensor("INPUT0", "FP32", ["width"])], [_tensor("OUTPUT0", "INT64", [1, "found"])]
    )


def sequence_output() -> onnx.ModelProto:
    """INPUT0 FP32 [batch] -> OUTPUT0, a sequence: no protocol carries it, no server may load it."""
    nodes = [helper.make_node("SequenceConstruct", ["INPUT0"], ["OUTPUT0"])]
    output = helper.make_tensor_sequence_value_info("OUTPUT0", TensorProto.FLOAT, ["batch"])
    return _model(nodes, [_tensor("INPUT0", "FP32", ["batch"])], [output])


def custom_operator() -> onnx.ModelProto:
    """A model of an operator that no engine has: refused at load."""
    nodes = [helper.make_node("Frobnicate", ["INPUT0"], ["OUTPUT0"], domain="com.example")]
    model = _model(
        nodes, [_tensor("INPUT0", "FP32", ["batch"])], [_tensor("OUTPUT0", "FP32", ["batch"])]
    )
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def write_all(repository: Path) -> list[str]:
    """Writes one of each servable model, the identities as identity_<datatype>; returns names."""
    models = {
        "simple": simple(),
        "simple_int8": simple("INT8"),
        "simple_string": simple("BYTES"),
        "row_sums": row_sums(),
        "optional_scale": optional_scale(),
        "nonzero": nonzero(),
        "external_bias": external_bias("bias.bin"),
        "no_batch": identity("FP32", [2, 3]),
    }
    models |= {f"identity_{name.lower()}": identity(name) for name in DATATYPES}
    for name, model in models.items():
        write_model(repository, name, model)
    (repository / "external_bias" / "1" / "bias.bin").write_bytes(external_bias_data())
    return sorted(models)


def _tensor(name: str, datatype: str, dims: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, DATATYPES[datatype], list(dims))


def _cast(source: str, target: str, datatype: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=DATATYPES[datatype])


def _model(
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    initializers: Iterable[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
