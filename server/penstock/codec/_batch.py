"""Inference requests that batch jobs send to the core in their own process, and its responses.

A message may be written in pieces: what describes the tensors is encoded once for all requests of
a shape, and the tensors' bytes are put behind it, copied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock._messages import pb

_RAW_CONTENTS = bytes([7 << 3 | 2])
"""The key of raw_input_contents: field 7, of a length that follows."""

DescribedTensor = tuple[str, str, tuple[int, ...]]
"""Name, datatype and shape."""


def infer_request_head(model: str, version: str, tensors: Sequence[DescribedTensor]) -> bytes:
    """A ModelInferRequest without its tensors' bytes."""
    return pb.ModelInferRequest(
        model_name=model,
        model_version=version,
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in tensors
        ],
    ).SerializeToString()


def join_infer_request(head: bytes, contents: Sequence[Any]) -> bytes:
    """The whole request.

    Args:
        head: as `infer_request_head` gives it.
        contents: a buffer for each tensor, in order.
    """
    pieces: list[Any] = [head]
    for content in contents:
        pieces += (_RAW_CONTENTS, _varint(memoryview(content).nbytes), content)
    return b"".join(pieces)


def parse_infer_response(message: bytes) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Name, datatype, shape and bytes of each output."""
    response = pb.ModelInferResponse.FromString(message)
    return [
        (output.name, output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    ]


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
