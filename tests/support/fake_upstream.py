"""An upstream of the gateway that does as told and remembers what it was asked."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.upstream import Call, UpstreamError

Answer = Callable[[Any], Any]


def echo(request: Any) -> Any:
    """Every input comes back as an output of its name."""
    reply = wire.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    for tensor in request.inputs:
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    reply.raw_output_contents.extend(request.raw_input_contents)
    return reply


@dataclass
class FakeUpstream:
    """Answers each RPC with the message that is set for it, or raises it.

    `answers`: by RPC, a message, an exception, or a function of the request. Streams answer with
    lists of these.
    """

    answers: dict[str, Any] = field(default_factory=lambda: {"ModelInfer": echo})
    calls: list[tuple[Call, Any]] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    refusal: UpstreamError | None = None
    is_ready: bool = True

    async def authorize(self, call: Call) -> None:
        self.authorized.append(call.rpc)
        if self.refusal is not None:
            raise self.refusal

    async def unary(self, call: Call, request: bytes) -> bytes:
        message = getattr(wire, f"{call.rpc}Request")()
        message.ParseFromString(request)
        self.calls.append((call, message))
        answer = self.answers.get(call.rpc)
        if callable(answer):
            answer = answer(message)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise UpstreamError(12, f"no answer to {call.rpc}")
        return bytes(answer.SerializeToString())

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        message = wire.ModelInferRequest.FromString(request)
        self.calls.append((call, message))
        for answer in self.answers[call.rpc]:
            if isinstance(answer, Exception):
                raise answer
            yield answer.SerializeToString()

    @property
    def last(self) -> Any:
        """The message of the last call."""
        return self.calls[-1][1]


def metadata(**shapes: tuple[str, list[int]]) -> Any:
    """Metadata of a model with these inputs."""
    reply = wire.ModelMetadataResponse(name="m", versions=["1"], platform="test")
    for name, (datatype, shape) in shapes.items():
        reply.inputs.add(name=name, datatype=datatype, shape=shape)
    return reply


def response(**values: Any) -> Any:
    """One response of a stream: INT32 by name."""
    reply = wire.ModelStreamInferResponse()
    reply.infer_response.model_name = "m"
    reply.infer_response.model_version = "1"
    for name, value in values.items():
        array = np.atleast_1d(np.asarray(value, np.int32))
        reply.infer_response.outputs.add(name=name, datatype="INT32", shape=array.shape)
        reply.infer_response.raw_output_contents.append(array.tobytes())
    return reply
