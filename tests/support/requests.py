"""ModelInferRequests for the fixture models, of tritonclient's classes and open to mischief."""

import struct
from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import service_pb2 as wire


def tensor(name: str, datatype: str, shape: Sequence[int], **contents: Any) -> Any:
    """An input; typed contents by field name."""
    kind = wire.ModelInferRequest.InferInputTensor
    made = kind(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(made.contents, field).extend(values)
    return made


def int32_bytes(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def simple_request(**changes: Any) -> Any:
    """A right request to `simple`: 0..15 and sixteen ones. Changes replace fields."""
    fields = {
        "model_name": "simple",
        "id": "42",
        "inputs": [tensor("INPUT0", "INT32", [1, 16]), tensor("INPUT1", "INT32", [1, 16])],
        "raw_input_contents": [int32_bytes(*range(16)), int32_bytes(*[1] * 16)],
        **changes,
    }
    return wire.ModelInferRequest(**fields)


def identity_request(values: Sequence[float], *, model: str = "identity", **changes: Any) -> Any:
    """One FP32 row to an identity."""
    fields = {
        "model_name": model,
        "inputs": [tensor("INPUT0", "FP32", [1, len(values)])],
        "raw_input_contents": [struct.pack(f"<{len(values)}f", *values)],
        **changes,
    }
    return wire.ModelInferRequest(**fields)


def sums(response: Any) -> tuple[int, ...]:
    """OUTPUT0 of a response of `simple`."""
    return struct.unpack("<16i", response.raw_output_contents[0])
