"""The routes that infer: the protocol's, SageMaker's and Vertex AI's."""

from __future__ import annotations

import re
from typing import Any

from penstock_gateway import infer, jsons, tensors
from penstock_gateway._messages import pb
from penstock_gateway.errors import HttpError
from penstock_gateway.exchange import SAGEMAKER_BINARY, Exchange

__all__ = ["infer_default", "infer_model"]

_SAGEMAKER_BINARY = re.compile(re.escape(SAGEMAKER_BINARY) + r";\s*json-header-size=(\d{1,18})")


async def infer_model(exchange: Exchange) -> None:
    """POST /v2/models/M[/versions/N]/infer."""
    data = await exchange.body()
    header_length = exchange.header_length(len(data))
    await _infer(exchange, data, header_length, exchange.path("model"), exchange.path("version"))


async def infer_default(exchange: Exchange) -> None:
    """POST /invocations, and Vertex AI's predict: an inference of the default model.

    A body with "instances" is answered with "predictions", as Vertex AI has it.
    """
    model = exchange.options.clouds.default_model
    if not model:
        raise HttpError(400, "no model is named, and the gateway has no default model")
    data = await exchange.body()
    found = _SAGEMAKER_BINARY.match(exchange.header(b"content-type") or "")
    if found is not None:
        if int(found[1]) > len(data):
            raise HttpError(400, f"json-header-size should be in range (0, {len(data)})")
        await _infer(exchange, data, int(found[1]), model, "", sagemaker=True)
        return
    header_length = exchange.header_length(len(data))
    if header_length is None:
        document = jsons.as_object(jsons.loads(data), "the request")
        if "instances" in document and "inputs" not in document:
            await _predict(exchange, document, model)
            return
    await _infer(exchange, data, header_length, model, "")


async def _infer(
    exchange: Exchange,
    data: bytes,
    header_length: int | None,
    model: str,
    version: str,
    *,
    sagemaker: bool = False,
) -> None:
    if header_length == 0:
        metadata = await _metadata(exchange, model, version)
        request = infer.parse_raw(data, model, version, metadata.inputs)
    else:
        request = infer.parse(data, header_length, model, version)
    is_step = bool(request.sequence)
    affinity = f"{model}/{request.sequence}" if is_step else ""
    call = exchange.call("ModelInfer", may_repeat=not is_step, affinity=affinity)
    reply = await exchange.upstream.unary(call, request.message)
    await exchange.answer_infer(reply, request.wants, sagemaker=sagemaker)


async def _metadata(exchange: Exchange, model: str, version: str) -> Any:
    request = pb.ModelMetadataRequest(name=model, version=version)
    return await exchange.unary("ModelMetadata", request, pb.ModelMetadataResponse)


async def _predict(exchange: Exchange, document: dict[str, Any], model: str) -> None:
    """Rows by input name, or rows of the one input; an answer per row."""
    metadata = await _metadata(exchange, model, "")
    instances = jsons.take(document, "instances", list, [], "the request")
    columns = _columns(instances, [each.name for each in metadata.inputs], model)
    request = pb.ModelInferRequest(model_name=model)
    for spec in metadata.inputs:
        if spec.name not in columns:
            continue  # the server says whether it may be missing
        raw, shape = tensors.from_json(spec.datatype, columns[spec.name], f"input '{spec.name}'")
        request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
        request.raw_input_contents.append(raw if isinstance(raw, bytes) else raw.tobytes())
    reply = await exchange.upstream.unary(exchange.call("ModelInfer"), request.SerializeToString())
    await exchange.answer_json({"predictions": _rows(pb.ModelInferResponse.FromString(reply))})


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
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = tensors.to_json(output.datatype, raw, f"output '{output.name}'")
        shape = list(output.shape) or [1]
        rows = values.reshape(shape).tolist() if hasattr(values, "reshape") else values
        columns[output.name] = _nest(rows, shape) if rows is values else rows
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _nest(values: list[Any], shape: list[int]) -> list[Any]:
    """A flat list as lists of lists."""
    for dim in shape[:0:-1]:
        values = [values[at : at + dim] for at in range(0, len(values), dim)] if dim else []
    return values
