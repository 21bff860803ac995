"""One inference: the JSON and the bytes of a request to the message of the call, and back.

    body of a request       Inference-Header-Content-Length: N
        JSON (N bytes)      inputs that carry `binary_data_size` in their parameters have no `data`:
        bytes               theirs follow here, one after the other

The message is written by hand around its raw contents, which come last: the bytes of a tensor are
copied once, from the body into the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock_gateway import jsons, tensors
from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError
from penstock_gateway.jsons import as_object, take

__all__ = [
    "InferRequest",
    "Sequence",
    "Wants",
    "parameters_to_json",
    "parse",
    "parse_raw",
    "read",
    "read_parameters",
    "render",
]

_RAW_INPUT_CONTENTS = 0x3A  # field 7, length-delimited
_INT64 = range(-(2**63), 2**63)
_UINT64_MAX = 2**64 - 1


@dataclass(slots=True)
class Wants:
    """How the outputs are to be sent.

    Attributes:
        binary_default: of those not named in `binary`.
        binary: by name of the output.
        in_memory: outputs that go to shared memory.
    """

    binary_default: bool = False
    binary: dict[str, bool] = field(default_factory=dict)
    in_memory: set[str] = field(default_factory=set)

    def is_binary(self, name: str) -> bool:
        """Whether the output goes as bytes."""
        return self.binary.get(name, self.binary_default)


@dataclass(frozen=True, slots=True)
class Sequence:
    """What parameters say of a sequence.

    Attributes:
        name: its id; "" = the request is no step of any.
        is_start: the step is the first.
    """

    name: str
    is_start: bool

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Sequence:
        """As JSON has them."""
        return cls(
            str(parameters.get("sequence_id") or ""), parameters.get("sequence_start") is True
        )

    def details(self, model: str) -> dict[str, Any]:
        """Of the `Call` that makes the step."""
        if not self.name:
            return {}
        affinity = f"{model}/{self.name}"
        return {"may_repeat": self.is_start, "affinity": affinity, "starts_sequence": self.is_start}


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as it goes on.

    Attributes:
        message: bytes of the ModelInferRequest.
        wants: how the outputs are to be sent.
        sequence: the sequence that it is a step of.
        id: the client's, for the log.
    """

    message: bytes
    wants: Wants
    sequence: Sequence = field(default_factory=lambda: Sequence.of({}))
    id: str = ""


def parse(body: bytes, header_length: int | None, model: str, version: str) -> InferRequest:
    """Reads a body of JSON, or of JSON and bytes.

    Args:
        body: of the HTTP request.
        header_length: Inference-Header-Content-Length; None = all of it is JSON.
        model: from the path.
        version: from the path; "" = the server's choice.

    Raises:
        HttpError: it is not such a body.
    """
    view = memoryview(body)
    document = jsons.loads(body if header_length is None else view[:header_length])
    rest = view[len(body) if header_length is None else header_length :]
    return read(as_object(document, "the request"), rest, model, version)


def read(document: dict[str, Any], rest: memoryview, model: str, version: str) -> InferRequest:
    """Reads what was parsed; `rest` are the bytes that follow it."""
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    message.id = take(document, "id", str, "", "the request")
    parameters = take(document, "parameters", dict, {}, "the request")
    wants = Wants(take(parameters, "binary_data_output", bool, False, "the parameters"))
    read_parameters(message.parameters, parameters, "the request", ("binary_data_output",))
    raws = _read_inputs(message, document, rest, model)
    _read_outputs(message, document, wants)
    return InferRequest(_serialize(message, raws), wants, Sequence.of(parameters), message.id)


def parse_raw(body: bytes, model: str, version: str, inputs: Iterable[Any]) -> InferRequest:
    """Reads a body that is the bytes of the model's one input.

    Args:
        body: of the HTTP request.
        model: from the path.
        version: from the path.
        inputs: the model's, as its metadata lists them.

    Raises:
        HttpError: the model does not take such a request.
    """
    specs = list(inputs)
    if len(specs) != 1:
        raise HttpError(
            400,
            f"raw binary request wants a model of 1 input, model '{model}' has {len(specs)}",
        )
    spec = specs[0]
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    shape, raws = _raw_tensor(body, spec, model)
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    return InferRequest(_serialize(message, raws), Wants(binary_default=True))


def render(reply: bytes, wants: Wants) -> tuple[list[bytes], int | None]:
    """The body of the response, in parts, and the length of its JSON where bytes follow it.

    Raises:
        HttpError: an output cannot be sent as JSON.
    """
    message = pb.ModelInferResponse.FromString(reply)
    document: dict[str, Any] = {
        "model_name": message.model_name,
        "model_version": message.model_version,
    }
    if message.id:
        document["id"] = message.id
    if message.parameters:
        document["parameters"] = parameters_to_json(message.parameters)
    raws = tensors.raw_contents(message)
    parts: list[bytes] = []
    document["outputs"] = [
        _output_to_json(output, raw, wants, parts)
        for output, raw in zip(message.outputs, raws, strict=True)
    ]
    header = jsons.dumps(document)
    has_binary = any("binary_data_size" in o.get("parameters", ()) for o in document["outputs"])
    return [header, *parts], len(header) if has_binary else None


def read_parameters(
    target: Any, given: Mapping[str, Any], what: str, consumed: tuple[str, ...] = ()
) -> None:
    """Sets the parameters of a message.

    Raises:
        HttpError: a value has no type on the wire, or a name is reserved.
    """
    for key, value in given.items():
        if key in consumed or value is None:
            continue
        if key.startswith("triton_"):
            message = "parameter keys starting with 'triton_' are reserved for Triton usage."
            raise HttpError(400, f"{message} Got '{key[:64]}'")
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int) and value in _INT64:
            target[key].int64_param = value
        elif isinstance(value, int) and 0 <= value <= _UINT64_MAX:
            target[key].uint64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        elif isinstance(value, str):
            target[key].string_param = value
        else:
            raise HttpError(
                400, f"parameter '{key[:64]}' of {what}: expected a string, a number or a boolean"
            )


def _read_inputs(
    message: pb.ModelInferRequest, document: dict[str, Any], rest: memoryview, model: str
) -> list[tensors.Raw]:
    """Adds the inputs; returns the raw contents of those that are not in shared memory."""
    raws: list[tensors.Raw] = []
    at = 0
    for entry in take(document, "inputs", list, [], "the request"):
        as_object(entry, "each of 'inputs'")
        name = take(entry, "name", str, "", "an input")
        where = f"input '{name}'"
        datatype = take(entry, "datatype", str, "", where)
        parameters = take(entry, "parameters", dict, {}, where)
        size_bytes = take(parameters, "binary_data_size", int, None, where)
        target = message.inputs.add(name=name, datatype=datatype, shape=_shape(entry, where))
        read_parameters(target.parameters, parameters, where, ("binary_data_size",))
        if parameters.get("shared_memory_region") is not None:
            _no_data(entry, size_bytes, where)
        elif size_bytes is not None:
            raws.append(_slice(rest, at, size_bytes, entry, f"{where} for model '{model}'"))
            at += size_bytes
        elif "data" in entry:
            raws.append(tensors.from_json(datatype, entry["data"], where)[0])
        else:
            raise HttpError(400, f"{where}: expected 'data' or 'binary_data_size'")
    if at != len(rest):
        message_text = f"unexpected additional input data for model '{model}'"
        raise HttpError(400, f"{message_text}: {len(rest) - at} bytes")
    return raws


def _no_data(entry: dict[str, Any], size_bytes: int | None, where: str) -> None:
    if "data" in entry or size_bytes is not None:
        raise HttpError(400, f"{where}: expected no data beside 'shared_memory_region'")


def _slice(
    rest: memoryview, at: int, size_bytes: int, entry: dict[str, Any], where: str
) -> memoryview:
    if "data" in entry:
        raise HttpError(400, f"{where}: expected no 'data' beside 'binary_data_size'")
    if size_bytes < 0:
        raise HttpError(400, f"{where}: expected a 'binary_data_size' of 0 or more")
    missing = size_bytes - (len(rest) - at)
    if missing > 0:
        raise HttpError(
            400, f"unexpected size for {where}, expecting {missing} additional bytes for model"
        )
    return rest[at : at + size_bytes]


def _shape(entry: dict[str, Any], where: str) -> list[int]:
    shape = take(entry, "shape", list, None, where)
    if shape is None or not set(map(type, shape)) <= {int} or not all(d in _INT64 for d in shape):
        raise HttpError(400, f"{where}: expected 'shape' to be a list of whole numbers")
    return list(shape)


def _read_outputs(message: pb.ModelInferRequest, document: dict[str, Any], wants: Wants) -> None:
    for entry in take(document, "outputs", list, [], "the request"):
        as_object(entry, "each of 'outputs'")
        name = take(entry, "name", str, "", "an output")
        where = f"output '{name}'"
        parameters = take(entry, "parameters", dict, {}, where)
        is_binary = take(parameters, "binary_data", bool, None, where)
        if is_binary is not None:
            wants.binary[name] = is_binary
        if parameters.get("shared_memory_region") is not None:
            wants.in_memory.add(name)
        target = message.outputs.add(name=name)
        read_parameters(target.parameters, parameters, where, ("binary_data",))


def _serialize(message: pb.ModelInferRequest, raws: Iterable[tensors.Raw]) -> bytes:
    parts: list[Any] = [message.SerializeToString()]
    for raw in raws:
        parts.append(_field_head(len(raw) if isinstance(raw, bytes) else raw.nbytes))
        parts.append(raw)
    return b"".join(parts)


def _field_head(size_bytes: int) -> bytes:
    """Tag and length of one raw content."""
    head = bytearray([_RAW_INPUT_CONTENTS])
    while size_bytes > 0x7F:
        head.append(size_bytes & 0x7F | 0x80)
        size_bytes >>= 7
    head.append(size_bytes)
    return bytes(head)


_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("INT32", "UINT32", "FP32"), 4),
    **dict.fromkeys(("INT64", "UINT64", "FP64"), 8),
}


def _raw_tensor(body: bytes, spec: Any, model: str) -> tuple[list[int], list[tensors.Raw]]:
    """The shape that the body has as this input: at most one dimension is left to it."""
    where = f"raw binary request of model '{model}', input '{spec.name}'"
    # A first dimension that is open may be the batch's: the request is of one row then.
    shape = list(spec.shape)
    if len(shape) > 1 and shape[0] < 0:
        shape[0] = 1
    if spec.datatype == "BYTES":
        if any(dim not in (1, -1) for dim in shape):
            raise HttpError(400, f"{where}: expected BYTES of shape [1], the model has {shape}")
        return [1] * len(shape), [len(body).to_bytes(4, "little") + body]
    if shape.count(-1) > 1:
        raise HttpError(400, f"{where}: expected at most one open dimension, it has {shape}")
    if -1 in shape:
        row_bytes = _ITEM_BYTES.get(spec.datatype, 1)
        for dim in shape:
            row_bytes *= dim if dim >= 0 else 1
        if row_bytes == 0 or len(body) % row_bytes:
            raise HttpError(
                400, f"{where}: {len(body)} bytes are no whole number of rows of {row_bytes} bytes"
            )
        shape[shape.index(-1)] = len(body) // row_bytes
    return shape, [body]


def parameters_to_json(parameters: Any) -> dict[str, Any]:
    """Parameters of a message as JSON has them."""
    found = {}
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            found[key] = getattr(value, choice)
    return found


def _output_to_json(output: Any, raw: bytes, wants: Wants, parts: list[bytes]) -> dict[str, Any]:
    name = output.name
    entry: dict[str, Any] = {
        "name": name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    if name in wants.in_memory:
        return entry
    if wants.is_binary(name):
        # Only here: where there are parameters, C++ clients want this one among them.
        entry["parameters"] = parameters_to_json(output.parameters)
        entry["parameters"]["binary_data_size"] = len(raw)
        parts.append(raw)
    else:
        entry["data"] = tensors.to_json(output.datatype, raw, f"output '{name}'")
    return entry
