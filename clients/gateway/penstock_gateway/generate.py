"""Generate: a JSON object to a model and back, in one answer or as server-sent events.

Members that are named as inputs of the model become tensors, the others parameters; what the model
answers comes back the same way. The model may be decoupled or not: its requests go by
ModelStreamInfer.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from penstock_gateway import infer, jsons, tensors
from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError, as_http_error
from penstock_gateway.exchange import Exchange
from penstock_gateway.jsons import take
from penstock_gateway.upstream import Call, Code, UpstreamError

__all__ = ["generate", "generate_stream"]

_NOT_ONE = (
    "generate expects model to produce exactly 1 response, "
    "use generate stream for models that generate various number of responses"
)
_AS_STATUS = ("triton_grpc_error", "true")
"""Metadata that makes a failure the status of the stream, so that its code is known."""
_FINAL = "triton_final_response"
_SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def generate(exchange: Exchange) -> None:
    """POST /v2/models/M/generate."""
    found = [each async for each in _first_two(await _responses(exchange))]
    if len(found) != 1:
        raise HttpError(400, _NOT_ONE)
    await exchange.answer_json(found[0])


async def generate_stream(exchange: Exchange) -> None:
    """POST /v2/models/M/generate_stream."""
    async with aclosing(await _responses(exchange)) as responses:
        first = await anext(responses, None)  # a failure before it has a status of its own
        await exchange.begin(200, _SSE)
        if first is not None:
            await exchange.send(_event(first))
            await _send_rest(exchange, responses)
    await exchange.send(b"", is_last=True)


async def _send_rest(exchange: Exchange, responses: AsyncGenerator[dict[str, Any], None]) -> None:
    """What follows; a failure is an event, for the status has gone out."""
    try:
        async for each in responses:
            await exchange.send(_event(each))
    except UpstreamError as error:
        await exchange.send(_event({"error": as_http_error(error).message}))
    except HttpError as error:
        await exchange.send(_event({"error": error.message}))


async def _first_two(
    responses: AsyncGenerator[dict[str, Any], None],
) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(responses):
        count = 0
        async for each in responses:
            yield each
            count += 1
            if count == 2:
                return


async def _responses(exchange: Exchange) -> AsyncGenerator[dict[str, Any], None]:
    """Reads the request; the responses of the model as JSON objects."""
    call, message = await _read(exchange)
    return _ask(exchange, call, message)


async def _read(exchange: Exchange) -> tuple[Call, bytes]:
    """The metadata comes before there is a document, which ends here."""
    data = await exchange.body(is_json=True)
    name, version = exchange.path("model"), exchange.path("version")
    metadata = await exchange.model_to_ask(name, version)
    given = jsons.as_object(jsons.loads(data), "the request") if data.strip() else {}
    inputs = {each.name: each for each in metadata.inputs}
    message, sequence = _request(given, name, version, inputs)
    exchange.note(name, version, message.id)
    call = exchange.call("ModelStreamInfer", **sequence.details(name))
    return call, message.SerializeToString()


async def _ask(
    exchange: Exchange, call: Call, message: bytes
) -> AsyncGenerator[dict[str, Any], None]:
    call = replace(call, metadata=(*call.metadata, _AS_STATUS))
    async with aclosing(exchange.upstream.stream(call, message)) as replies:
        async for reply in replies:
            answer = pb.ModelStreamInferResponse.FromString(reply)
            if answer.error_message:
                raise UpstreamError(Code.UNKNOWN, answer.error_message)
            if answer.infer_response.outputs:
                yield _to_json(answer.infer_response)


def _request(
    given: dict[str, Any], name: str, version: str, inputs: dict[str, Any]
) -> tuple[pb.ModelInferRequest, infer.Sequence]:
    message = pb.ModelInferRequest(model_name=name, model_version=version)
    if "id" not in inputs:
        message.id = take(given, "id", str, "", "the request")
        given.pop("id", None)
    if "parameters" not in inputs:
        given = {**take(given, "parameters", dict, {}, "the request"), **given}
        given.pop("parameters", None)
    for key, spec in inputs.items():
        if key in given:
            _add_input(message, spec, given.pop(key))
    infer.read_parameters(message.parameters, given, "the request")
    return message, infer.Sequence.of(given)


def _add_input(message: pb.ModelInferRequest, spec: Any, value: object) -> None:
    where = f"input '{spec.name}'"
    data = value if isinstance(value, list) else [value]
    raw, dimensions = tensors.from_json(spec.datatype, data, where)
    shape = dimensions if len(dimensions) > 1 else _fit(list(spec.shape), dimensions[0], where)
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    message.raw_input_contents.append(bytes(raw) if isinstance(raw, bytes) else raw.tobytes())


def _fit(shape: list[int], count: int, where: str) -> list[int]:
    """The model's shape with its open dimensions 1, but the last, which takes the elements."""
    is_open = [dim < 0 for dim in shape]
    fixed = math.prod(dim for dim in shape if dim >= 0)
    if True not in is_open:
        return shape
    if fixed == 0 or count % fixed:
        raise HttpError(400, f"{where}: {count} elements do not fit the shape {shape}")
    last = len(shape) - 1 - is_open[::-1].index(True)
    return [count // fixed if at == last else max(dim, 1) for at, dim in enumerate(shape)]


def _to_json(response: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        document["id"] = response.id
    for key, value in infer.parameters_to_json(response.parameters).items():
        if key != _FINAL:
            document[key] = value
    for output, raw in zip(response.outputs, tensors.raw_contents(response), strict=True):
        values = tensors.to_json(output.datatype, raw, f"output '{output.name}'")
        document[output.name] = values[0] if len(values) == 1 else values
    return document


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + jsons.dumps(document) + b"\n\n"
