"""The routes that infer: the protocol's, SageMaker's and Vertex AI's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from penstock_gateway import infer, jsons, tensors
from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError
from penstock_gateway.exchange import SAGEMAKER_BINARY, Exchange
from penstock_gateway.infer import InferRequest

__all__ = ["infer_default", "infer_model"]

_SAGEMAKER_BINARY = re.compile(re.escape(SAGEMAKER_BINARY) + r";\s*json-header-size=(\d{1,18})")
_INSTANCES = b'"instances"'
"""Without it no body has rows. In a text of JSON its quotes have backslashes before them."""


async def infer_model(exchange: Exchange) -> None:
    """POST /v2/models/M[/versions/N]/infer."""
    model = exchange.path("model")
    request = await _read(exchange, model, exchange.path("version"))
    await _ask(exchange, request, model)


async def infer_default(exchange: Exchange) -> None:
    """POST /invocations, and Vertex AI's predict: an inference of the default model.

    A body with "instances" is answered with "predictions", as Vertex AI has it.
    """
    model = exchange.options.clouds.default_model
    if not model:
        raise HttpError(400, "no model is named, and the gateway has no default model")
    found = _SAGEMAKER_BINARY.match(exchange.header(b"content-type") or "")
    if found is not None:
        request = await _read_sagemaker(exchange, int(found[1]), model)
        await _ask(exchange, request, model, sagemaker=True)
    elif not exchange.is_all_json:
        await _ask(exchange, await _read(exchange, model, ""), model)
    else:
        read = await _read_json(exchange, model)
        if isinstance(read, InferRequest):
            await _ask(exchange, read, model)
        else:
            await _predict(exchange, read)


# Bodies and their documents end with the functions that read them: an inference may take its time.


async def _read(exchange: Exchange, model: str, version: str) -> InferRequest:
    data = await exchange.body(is_json=exchange.is_all_json)
    header_length = exchange.header_length(len(data))
    if header_length == 0:
        metadata = await exchange.model_to_ask(model, version)
        return infer.parse_raw(data, model, version, metadata.inputs)
    return infer.parse(data, header_length, model, version)


async def _read_sagemaker(exchange: Exchange, header_length: int, model: str) -> InferRequest:
    data = await exchange.body()
    if header_length > len(data):
        raise HttpError(400, f"json-header-size should be in range (0, {len(data)})")
    exchange.check_json(header_length)
    if header_length == 0:
        metadata = await exchange.model_to_ask(model)
        return infer.parse_raw(data, model, "", metadata.inputs)
    return infer.parse(data, header_length, model, "")


async def _read_json(exchange: Exchange, model: str) -> InferRequest | bytes:
    """An inference, or what to send for rows. The metadata comes before there is a document."""
    data = await exchange.body(is_json=True)
    may_be_rows = _INSTANCES in data
    inputs = (await exchange.model_to_ask(model)).inputs if may_be_rows else []
    document = jsons.as_object(jsons.loads(data), "the request")
    if may_be_rows and "instances" in document and "inputs" not in document:
        return _read_rows(document, inputs, model)
    return infer.read(document, memoryview(b""), model, "")


async def _ask(
    exchange: Exchange, request: InferRequest, model: str, *, sagemaker: bool = False
) -> None:
    exchange.note(model, exchange.path("version"), request.id)
    call = exchange.call("ModelInfer", **request.sequence.details(model))
    reply = await exchange.upstream.unary(call, request.message)
    await exchange.answer_infer(reply, request.wants, sagemaker=sagemaker)


async def _predict(exchange: Exchange, message: bytes) -> None:
    """An answer per row."""
    reply = await exchange.upstream.unary(exchange.call("ModelInfer"), message)
    await exchange.answer_json({"predictions": _rows(pb.ModelInferResponse.FromString(reply))})


def _read_rows(document: dict[str, Any], inputs: Sequence[Any], model: str) -> bytes:
    """Rows by input name, or rows of the one input."""
    instances = jsons.take(document, "instances", list, [], "the request")
    columns = _columns(instances, [each.name for each in inputs], model)
    request = pb.ModelInferRequest(model_name=model)
    for spec in inputs:
        if spec.name not in columns:
            continue  # the server says whether it may be missing
        raw, shape = tensors.from_json(spec.datatype, columns[spec.name], f"input '{spec.name}'")
        request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
        request.raw_input_contents.append(raw if isinstance(raw, bytes) else raw.tobytes())
    return request.SerializeToString()


def _columns(instances: list[Any], names: list[str], model: str) -> dict[str, list[Any]]:
    kinds = set(map(type, instances))
    if dict not in kinds:
        if len(names) != 1:
            raise HttpError(400, f"model '{model}' has inputs {names}: expected objects of these")
        return {names[0]: instances}
    keys = set(map(frozenset, instances)) if kinds == {dict} else set()
    if len(keys) != 1 or not (wanted := keys.pop()) <= set(names):
        raise HttpError(400, f"each of 'instances' must have the same of {names}")
    return {name: [row[name] for row in instances] for name in wanted}


def _rows(response: Any) -> list[Any]:
    columns: dict[str, list[Any]] = {}
    for output, raw in zip(response.outputs, tensors.raw_contents(response), strict=True):
        values = tensors.to_json(output.datatype, raw, f"output '{output.name}'")
        shape = list(output.shape) or [1]
        rows = values.reshape(shape).tolist() if hasattr(values, "reshape") else values
        columns[output.name] = _nest(rows, shape) if rows is values else rows
    if len(columns) == 1:
        return next(iter(columns.values()))
    counts = {name: len(rows) for name, rows in columns.items()}
    if len(set(counts.values())) > 1:
        raise HttpError(
            400, f"predictions want outputs with as many rows, the model answered with {counts}"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _nest(values: list[Any], shape: list[int]) -> list[Any]:
    """A flat list as lists of lists."""
    for dim in shape[:0:-1]:
        values = [values[at : at + dim] for at in range(0, len(values), dim)] if dim else []
    return values
