"""Small models in every format that the openvino backend reads, without the frameworks' packages.

All but `simple` compute OUTPUT = INPUT x 2 on FP32 [batch,3]; `scaled` writes one of any format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.models import _flatbuffer
from tests.support.models._protobuf import entry, field

TWOS = struct.pack("<3f", 2, 2, 2)
DT_FLOAT = 1  # TensorFlow's


def simple(folder: Path) -> None:
    """INPUT0, INPUT1 INT32 [batch,16] -> OUTPUT0 their sum, OUTPUT1 their difference, as IR."""
    graph = Ir()
    for name in ("INPUT0", "INPUT1"):
        graph.parameter(name, "i32", "?,16")
    graph.layer("Add", ["INPUT0", "INPUT1"], "OUTPUT0")
    graph.layer("Subtract", ["INPUT0", "INPUT1"], "OUTPUT1")
    graph.write(folder, ["OUTPUT0", "OUTPUT1"])


def scaled(path: Path, *, operator: str = "") -> None:
    """Writes the model in the format that the file's name says.

    Args:
        path: of the file, or of the directory where the format is one.
        operator: in place of the multiplication; for one that does not exist.
    """
    writers: Mapping[str, Callable[[Path, str], None]] = {
        ".xml": _write_ir,
        ".pb": _write_frozen,
        ".saved_model": _write_saved_model,
        ".tflite": _write_tflite,
        ".pdmodel": _write_paddle,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix](path, operator)


def write_model(
    repository: Path,
    name: str,
    filename: str = "model.xml",
    *,
    config: str = 'backend: "openvino"',
    operator: str = "",
) -> Path:
    """Lays `scaled` out in a repository and returns the model's folder."""
    folder = repository / name
    scaled(folder / "1" / filename, operator=operator)
    (folder / "config.pbtxt").write_text(config)
    return folder


class Ir:
    """An OpenVINO IR graph: layers in order, each named like the tensor it makes."""

    def __init__(self) -> None:
        self._layers: list[str] = []
        self._edges: list[str] = []
        self._places: dict[str, tuple[int, int, str]] = {}
        self._weights = b""

    def parameter(self, name: str, kind: str, shape: str) -> None:
        """An input of the graph; `?` in the shape is any size."""
        self._add("Parameter", name, f'shape="{shape}" element_type="{kind}"', [], kind)

    def constant(self, name: str, kind: str, shape: str, data: bytes) -> None:
        """A constant, whose bytes go into the .bin."""
        place = f'offset="{len(self._weights)}" size="{len(data)}"'
        self._weights += data
        self._add("Const", name, f'element_type="{kind}" shape="{shape}" {place}', [], kind)

    def layer(self, kind: str, inputs: Sequence[str], output: str, data: str = "") -> None:
        """An operator of opset1 that keeps its first input's type."""
        self._add(kind, output, data, inputs, self._places[inputs[0]][2])

    def write(self, folder: Path, outputs: Sequence[str], stem: str = "model") -> None:
        """Writes <stem>.xml and, if there are constants, <stem>.bin."""
        for name in outputs:
            self._add("Result", f"{name}/sink", "", [name], "", f'output_names="{name}"')
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.xml").write_text(
            f'<?xml version="1.0"?><net name="m" version="11"><layers>{"".join(self._layers)}'
            f"</layers><edges>{''.join(self._edges)}</edges><rt_info /></net>"
        )
        if self._weights:
            (folder / f"{stem}.bin").write_bytes(self._weights)

    def _add(
        self,
        kind: str,
        name: str,
        data: str,
        inputs: Sequence[str],
        dtype: str,
        attributes: str = "",
    ) -> None:
        number = len(self._layers)
        ports = "".join(f'<port id="{port}" />' for port in range(len(inputs)))
        for port, source in enumerate(inputs):
            layer, place, _ = self._places[source]
            self._edges.append(
                f'<edge from-layer="{layer}" from-port="{place}" '
                f'to-layer="{number}" to-port="{port}" />'
            )
        text = f'<layer id="{number}" name="{name}" type="{kind}" version="opset1" {attributes}>'
        text += f"<data {data} />" if data else ""
        text += f"<input>{ports}</input>" if inputs else ""
        if dtype:
            self._places[name] = (number, len(inputs), dtype)
            made = f'<port id="{len(inputs)}" precision="{dtype}" names="{name}" />'
            text += f"<output>{made}</output>"
        self._layers.append(text + "</layer>")


def _write_ir(path: Path, operator: str) -> None:
    graph = Ir()
    graph.parameter("INPUT", "f32", "?,3")
    graph.constant("twos", "f32", "3", TWOS)
    graph.layer(operator or "Multiply", ["INPUT", "twos"], "OUTPUT")
    graph.write(path.parent, ["OUTPUT"], path.stem)


def tensorflow_shape(*dims: int) -> bytes:
    """TensorShapeProto."""
    return b"".join(field(2, field(1, dim)) for dim in dims)


def tensorflow_node(name: str, op: str, inputs: Sequence[str], attrs: dict[str, bytes]) -> bytes:
    """A node of a GraphDef; attributes are AttrValues."""
    body = field(1, name) + field(2, op) + b"".join(field(3, each) for each in inputs)
    return field(1, body + b"".join(entry(5, key, value) for key, value in attrs.items()))


def _graph_def(operator: str) -> bytes:
    kind = field(6, DT_FLOAT)
    twos = field(1, DT_FLOAT) + field(2, tensorflow_shape(3)) + field(4, TWOS)
    shape = field(7, tensorflow_shape(-1, 3))
    return b"".join(
        [
            tensorflow_node("INPUT", "Placeholder", [], {"dtype": kind, "shape": shape}),
            tensorflow_node("twos", "Const", [], {"dtype": kind, "value": field(8, twos)}),
            tensorflow_node("OUTPUT", operator or "Mul", ["INPUT", "twos"], {"T": kind}),
            field(4, field(1, 1500)),  # made by a TensorFlow of this age
        ]
    )


def _write_frozen(path: Path, operator: str) -> None:
    path.write_bytes(_graph_def(operator))


def _write_saved_model(path: Path, operator: str) -> None:
    def tensor(name: str) -> bytes:
        return field(1, f"{name}:0") + field(2, DT_FLOAT) + field(3, tensorflow_shape(-1, 3))

    signature = entry(1, "INPUT", tensor("INPUT")) + entry(2, "OUTPUT", tensor("OUTPUT"))
    signature += field(3, "tensorflow/serving/predict")
    graph = field(1, field(4, "serve")) + field(2, _graph_def(operator))
    graph += entry(5, "serving_default", signature)
    path.mkdir()
    (path / "saved_model.pb").write_bytes(field(1, 1) + field(2, graph))


def _write_tflite(path: Path, operator: str) -> None:
    table, vector, i8, i32, u32 = (
        _flatbuffer.Table,
        _flatbuffer.Vector,
        _flatbuffer.Int8,
        _flatbuffer.Int32,
        _flatbuffer.Uint32,
    )

    def tensor(name: str, shape: Sequence[int], buffer: int, open_dims: Sequence[int]) -> object:
        dims = vector([i32(dim) for dim in shape])
        signature = vector([i32(dim) for dim in open_dims])
        return table({0: dims, 1: i8(0), 2: u32(buffer), 3: name, 7: signature})

    def indices(*numbers: int) -> object:
        return vector([i32(number) for number in numbers])

    multiply = {0: i8(18), 2: i32(1), 3: i32(18)}
    custom = {0: i8(32), 1: operator, 2: i32(1), 3: i32(32)}
    node = {0: u32(0), 1: indices(0, 1), 2: indices(2)}
    if not operator:
        node |= {3: i8(21), 4: table({0: i8(0)})}
    subgraph = table(
        {
            0: vector(
                [
                    tensor("INPUT", [1, 3], 0, [-1, 3]),
                    tensor("twos", [3], 1, [3]),
                    tensor("OUTPUT", [1, 3], 0, [-1, 3]),
                ]
            ),
            1: indices(0),
            2: indices(2),
            3: vector([table(node)]),
            4: "main",
        }
    )
    model = table(
        {
            0: u32(3),
            1: vector([table(custom if operator else multiply)]),
            2: vector([subgraph]),
            3: "scaled",
            4: vector([table({}), table({0: TWOS})]),
        }
    )
    path.write_bytes(_flatbuffer.serialize(model, b"TFL3"))


def _write_paddle(path: Path, operator: str) -> None:
    lod_tensor, feed_list, fetch_list, fp32 = 7, 9, 10, 5

    def variable(name: str, kind: int, dims: Sequence[int] = ()) -> bytes:
        body = field(1, kind)
        if dims:
            description = field(1, fp32) + b"".join(field(2, dim) for dim in dims)
            body += field(3, field(1, description))
        return field(3, field(1, name) + field(2, body) + field(3, int(not dims)))

    def operation(kind: str, source: str, target: str, attributes: bytes) -> bytes:
        inputs = field(1, field(1, "X") + field(2, source))
        outputs = field(2, field(1, "Out") + field(2, target))
        return field(4, inputs + outputs + field(3, kind) + attributes)

    column = field(4, field(1, "col") + field(2, 0) + field(3, 0))
    scale = field(4, field(1, "scale") + field(2, 1) + field(4, 2.0))
    scale += field(4, field(1, "bias") + field(2, 1) + field(4, 0.0))
    scale += field(4, field(1, "bias_after_scale") + field(2, 6) + field(10, 1))
    block = field(1, 0) + field(2, 0)
    block += variable("feed", feed_list) + variable("fetch", fetch_list)
    block += variable("INPUT", lod_tensor, [-1, 3]) + variable("OUTPUT", lod_tensor, [-1, 3])
    block += operation("feed", "feed", "INPUT", column)
    block += operation(operator or "scale", "INPUT", "OUTPUT", scale)
    block += operation("fetch", "OUTPUT", "fetch", column)
    path.write_bytes(field(1, block) + field(4, field(1, 2_006_000)))
