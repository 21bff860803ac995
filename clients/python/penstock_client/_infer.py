"""Inference requests and results: numpy on the user's side, protocol messages on the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock_client._messages import pb
from penstock_client.errors import ProtocolError, StreamResponseError, TensorError
from penstock_client.regions import SharedRoom, SharedTensor
from penstock_client.tensors import Array, Tensor, WireTensor, array_of_contents, decode, encode

Parameter = bool | int | float | str
"""A request parameter: sent as bool, int64 (uint64 when it needs to be), double or string."""

InputValue = Array | Tensor | SharedTensor

Outputs = Sequence[str] | Mapping[str, SharedRoom | None]
"""The outputs to return, in this order; with a `SharedRoom`, there."""

Rooms = Mapping[str, SharedRoom]

_INT64 = range(-(2**63), 2**63)
_UINT64_MAX = 2**64 - 1
_FINAL = "triton_final_response"


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """One inference, for `stream()`; `infer()` takes the same as arguments.

    Attributes:
        model: The model's name.
        inputs: Array (or `Tensor`, to spell out the datatype, or `SharedTensor`) by input name. A
            batching model wants the batch as first dimension, also when it is 1.
        outputs: Outputs to return, in this order; None for all. A mapping says of each output into
            which `SharedRoom` it goes; None for the answer's message.
        version: The model version, "" for the one the server prefers.
        request_id: Echoed in the result and in errors.
        priority: 1 is the most urgent, 0 the model's default.
        timeout_us: Microseconds the request may wait in the server's queue, 0 for the model's
            default; past it the answer is `UnavailableError`. Not the deadline of the call.
        parameters: Further request parameters, for instance
            `{"sequence_id": 7, "sequence_start": True}`, or what the model itself reads.
        classification: Outputs to return as their k best classes instead of values, as
            `{output: k}`: BYTES elements "value:index" or "value:index:label".
    """

    model: str
    inputs: Mapping[str, InputValue]
    outputs: Outputs | None = None
    version: str = ""
    request_id: str = ""
    priority: int = 0
    timeout_us: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    classification: Mapping[str, int] = field(default_factory=dict)

    @property
    def may_run_twice(self) -> bool:
        """False for a step of a sequence: the model would see it twice."""
        return not self.parameters.get("sequence_id")

    @property
    def rooms(self) -> Rooms:
        """The outputs that go into shared memory, and where."""
        outputs = self.outputs
        if not isinstance(outputs, Mapping):
            return {}
        return {name: room for name, room in outputs.items() if room is not None}


class InferResult(Mapping[str, Array]):
    """The outputs of one inference: a read-only mapping from output name to array.

    Arrays of fixed-size datatypes are read-only views on the received bytes, or on the shared
    memory that they were asked into; BYTES outputs are object arrays of `bytes`. Iteration order
    is the server's output order.

    Attributes:
        model_name: The model that answered.
        model_version: The version that answered.
        id: The request's id.
        parameters: What the server adds to the response.
        is_final: False for a response of a stream that is not the request's last.
    """

    __slots__ = ("_arrays", "id", "is_final", "model_name", "model_version", "parameters")

    def __init__(
        self,
        arrays: Mapping[str, Array],
        *,
        model_name: str = "",
        model_version: str = "",
        id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
        is_final: bool = True,
    ) -> None:
        """Results come from a client; tests may build their own."""
        self._arrays = dict(arrays)
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self.parameters: Mapping[str, Parameter] = dict(parameters or {})
        self.is_final = is_final

    def __getitem__(self, name: str) -> Array:
        """The output's array.

        Raises:
            KeyError: No such output; the message lists those there are.
        """
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(
                f"model '{self.model_name}' returned no output '{name}', only {list(self._arrays)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        """Whether the output was returned."""
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        """The output names."""
        return iter(self._arrays)

    def __len__(self) -> int:
        """The number of outputs."""
        return len(self._arrays)

    def __repr__(self) -> str:
        """Names, dtypes and shapes, not the values."""
        outputs = ", ".join(f"{k}: {a.dtype}{list(a.shape)}" for k, a in self._arrays.items())
        return f"InferResult(model {self.model_name!r} v{self.model_version}, {{{outputs}}})"


def build_request(request: InferRequest) -> pb.ModelInferRequest:
    """The message for a request.

    Raises:
        TensorError: An input, parameter or class count cannot be sent.
    """
    message = pb.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.request_id
    )
    for name, value in request.inputs.items():
        if isinstance(value, SharedTensor):
            tensor = message.inputs.add(name=name, datatype=value.datatype, shape=value.shape)
            _place(tensor.parameters, value)
            continue
        wire = encode(value, f"input '{name}' of model '{request.model}'")
        message.inputs.add(name=name, datatype=wire.datatype, shape=wire.shape)
        message.raw_input_contents.append(bytes(wire.raw))
    for key, parameter in _all_parameters(request).items():
        _set_parameter(message.parameters[key], parameter, f"parameter '{key}'", request.model)
    if request.priority:  # public clients send it unsigned
        _set_unsigned(message.parameters["priority"], request.priority, request.model)
    _add_outputs(message, request)
    return message


def read_response(message: pb.ModelInferResponse, rooms: Rooms | None = None) -> InferResult:
    """The result in a response message, and in the rooms that its request named.

    Raises:
        ProtocolError: Outputs and their bytes do not belong together.
    """
    parameters = {key: _parameter_value(value) for key, value in message.parameters.items()}
    raws = message.raw_output_contents
    if raws and len(raws) != len(message.outputs):
        raise ProtocolError(
            f"model '{message.model_name}' returned {len(message.outputs)} outputs but "
            f"{len(raws)} raw contents"
        )
    arrays: dict[str, Array] = {}
    for position, output in enumerate(message.outputs):
        where = f"output '{output.name}' of model '{message.model_name}'"
        shape = tuple(output.shape)
        if rooms and (room := rooms.get(output.name)) is not None:
            arrays[output.name] = room.read(output.datatype, shape, where)
            continue
        raw = raws[position] if raws else _typed_raw(output, where)
        arrays[output.name] = decode(WireTensor(output.datatype, shape, raw), where)
    return InferResult(
        arrays,
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        is_final=bool(parameters.pop(_FINAL, True)),
        parameters=parameters,
    )


class StreamMessages:
    """Builds the requests of one stream and reads its responses.

    Which request a response belongs to is told by its id alone, and only those into shared memory
    need it.

    Threading: one thread builds while another reads.
    """

    def __init__(self) -> None:
        """Of a stream that has sent nothing."""
        self._rooms: dict[str, Rooms] = {}  # of requests without their last response, by id

    def build(self, request: InferRequest) -> pb.ModelInferRequest:
        """As `build_request`.

        Raises:
            TensorError: Also where outputs go to shared memory and no id, or one that is in use,
                says whose they are.
        """
        message = build_request(request)
        if rooms := request.rooms:
            if not request.request_id or request.request_id in self._rooms:
                raise TensorError(
                    f"request '{request.request_id}' of model '{request.model}': outputs into "
                    "shared memory want a request_id that no other request of the stream has"
                )
            self._rooms[request.request_id] = rooms
        return message

    def read(self, message: Any) -> InferResult | StreamResponseError:
        """The result, or the error, in one ModelStreamInferResponse."""
        response: pb.ModelInferResponse = message.infer_response
        if message.error_message:
            self._rooms.pop(response.id, None)
            return StreamResponseError(
                message.error_message, model=response.model_name, request_id=response.id
            )
        result = read_response(response, self._rooms.get(response.id))
        if result.is_final:
            self._rooms.pop(response.id, None)
        return result


def _place(parameters: Any, where: SharedTensor | SharedRoom) -> None:
    parameters["shared_memory_region"].string_param = where.memory.name
    parameters["shared_memory_byte_size"].int64_param = where.byte_size
    if where.offset:
        parameters["shared_memory_offset"].int64_param = where.offset


def _all_parameters(request: InferRequest) -> dict[str, Parameter]:
    parameters = dict(request.parameters)
    for key, value in (("priority", request.priority), ("timeout", request.timeout_us)):
        if value and key in parameters:
            raise TensorError(
                f"model '{request.model}': '{key}' is given both as argument and as parameter"
            )
    if request.timeout_us:
        parameters["timeout"] = request.timeout_us
    return parameters


def _set_unsigned(target: pb.InferParameter, value: int, model: str) -> None:
    if not 0 <= value <= _UINT64_MAX:
        raise TensorError(f"priority of model '{model}': {value} is not an unsigned 64-bit number")
    target.uint64_param = value


def _set_parameter(target: pb.InferParameter, value: object, what: str, model: str) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int) and value in _INT64:
        target.int64_param = value
    elif isinstance(value, int) and 0 <= value <= _UINT64_MAX:
        target.uint64_param = value
    elif isinstance(value, float):
        target.double_param = value
    elif isinstance(value, str):
        target.string_param = value
    else:
        raise TensorError(
            f"{what} of model '{model}': got {value!r} ({type(value).__name__}), expected bool, "
            "int of 64 bits, float or str"
        )


def _parameter_value(parameter: pb.InferParameter) -> Parameter:
    choice = parameter.WhichOneof("parameter_choice")
    value: Parameter = getattr(parameter, choice) if choice else ""
    return value


def _add_outputs(message: pb.ModelInferRequest, request: InferRequest) -> None:
    """Listed outputs, then classified ones; the protocol returns all when none is listed."""
    rooms = request.rooms
    for name in dict.fromkeys([*(request.outputs or ()), *request.classification]):
        output = message.outputs.add(name=name)
        if room := rooms.get(name):
            _place(output.parameters, room)
        if name not in request.classification:
            continue
        count = request.classification[name]
        if count < 1 or count not in _INT64:
            raise TensorError(
                f"output '{name}' of model '{request.model}': classification wants at least 1 "
                f"class and less than 2**63, got {count}"
            )
        output.parameters["classification"].int64_param = count


_CONTENTS_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def _typed_raw(output: pb.ModelInferResponse.InferOutputTensor, where: str) -> bytes:
    """The bytes of an output that came as typed contents, as some servers send them."""
    values: Sequence[Any] = getattr(output.contents, _CONTENTS_FIELD.get(output.datatype, ""), ())
    return bytes(array_of_contents(output.datatype, values, where).raw)
