"""Requests for the fixtures repeat_int32 and square_int32, and what their replies say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as wire

HOUR_MS = 3_600_000


def add_input(request: Any, name: str, datatype: str, values: Sequence[int]) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
    kind = np.int32 if datatype == "INT32" else np.uint32
    request.raw_input_contents.append(np.array(values, kind).tobytes())


def repeat(
    values: Sequence[int],
    delays_ms: Sequence[int] | None = None,
    *,
    id: str = "",
    empty_final: bool = False,
    model: str = "repeat_int32",
) -> bytes:
    """One response for each of the values, so long after the one before it; at once by default."""
    request = wire.ModelInferRequest(model_name=model, id=id)
    add_input(request, "IN", "INT32", values)
    add_input(request, "DELAY", "UINT32", [0] * len(values) if delays_ms is None else delays_ms)
    add_input(request, "WAIT", "UINT32", [0])
    return _finished(request, empty_final)


def square(count: int, id: str = "", *, empty_final: bool = False) -> bytes:
    """So many responses, each of them the number."""
    request = wire.ModelInferRequest(model_name="square_int32", id=id)
    add_input(request, "IN", "INT32", [count])
    return _finished(request, empty_final)


def _finished(request: Any, empty_final: bool) -> bytes:
    request.parameters["triton_enable_empty_final_response"].bool_param = empty_final
    return bytes(request.SerializeToString())


def numbers(reply: Any) -> tuple[int, ...]:
    """The value of each output."""
    raw = reply.infer_response.raw_output_contents
    return tuple(int(np.frombuffer(each, np.int32)[0]) for each in raw)


def is_final(reply: Any) -> bool:
    return bool(reply.infer_response.parameters["triton_final_response"].bool_param)
