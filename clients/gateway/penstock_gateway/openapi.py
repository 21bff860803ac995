"""The OpenAPI document of the gateway's routes; `Gateway` and the tests hold it to them."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["document"]

_VERSION = "0.1.0"
_DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
)
_JSON = "application/json"
_BINARY = "application/octet-stream"
Schema = dict[str, Any]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema | None = None, required: tuple[str, ...] = ()) -> Schema:
    schema: Schema = {"type": "object", "properties": properties or {}}
    return {**schema, "required": list(required)} if required else schema


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_SIZE: Schema = {"type": "integer", "minimum": 0}
_SHAPE = _array({"type": "integer"})
_PARAMETERS: Schema = {
    "type": "object",
    "description": "Strings, numbers and booleans by name.",
    "additionalProperties": {"type": ["string", "number", "integer", "boolean"]},
}
_REGION: Schema = {
    "shared_memory_region": _TEXT,
    "shared_memory_byte_size": _SIZE,
    "shared_memory_offset": _SIZE,
}


def _schemas() -> Schema:
    datatype = {"type": "string", "enum": list(_DATATYPES)}
    in_parameters = _object({"binary_data_size": _SIZE, **_REGION})
    out_parameters = _object({"binary_data": _FLAG, "classification": _SIZE, **_REGION})
    data = {"type": "array", "description": "Elements in row-major order, flat or nested."}
    request_input = {"name": _TEXT, "shape": _SHAPE, "datatype": datatype, "data": data}
    response_output = {"name": _TEXT, "shape": _SHAPE, "datatype": _TEXT, "data": data}
    return {
        "Error": _object({"error": _TEXT}, ("error",)),
        "InferInput": _object(
            {**request_input, "parameters": in_parameters}, ("name", "shape", "datatype")
        ),
        "InferRequest": _object(
            {
                "id": _TEXT,
                "parameters": _PARAMETERS,
                "inputs": _array(_ref("InferInput")),
                "outputs": _array(_object({"name": _TEXT, "parameters": out_parameters})),
            },
            ("inputs",),
        ),
        "InferResponse": _object(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "parameters": _PARAMETERS,
                "outputs": _array(
                    _object({**response_output, "parameters": _object({"binary_data_size": _SIZE})})
                ),
            },
            ("model_name", "outputs"),
        ),
        "Any": {"type": "object", "additionalProperties": True},
        "Text": {"type": "object", "additionalProperties": {"type": "string"}},
    }


def _errors(*statuses: int) -> Schema:
    return {
        str(status): {
            "description": _REASONS[status],
            "content": {_JSON: {"schema": _ref("Error")}},
        }
        for status in statuses
    }


_REASONS = {
    400: "The request does not fit the protocol or the model, or what is asked for is not ready.",
    401: "No key or token, or none that is good.",
    403: "A key or token that may not do this, or a header that is missing.",
    404: "No such model, version or region.",
    409: "Given up in the middle; try again.",
    413: "The body is larger than the gateway takes.",
    429: "Over a rate or another limit; Retry-After says when to come back.",
    500: "The model or the server failed.",
    501: "Not supported here, or not allowed by the operator.",
    503: "Not now: overload, drain, no server; Retry-After says when to come back.",
    504: "The call's deadline passed.",
}


def _operation(
    summary: str,
    tag: str,
    answer: Schema,
    *,
    request: Schema | None = None,
    is_binary: bool = False,
    is_required: bool = True,
    has_caller: bool = True,
) -> Schema:
    kinds = {_JSON: {"schema": answer}}
    if is_binary:
        kinds[_BINARY] = {"schema": {"type": "string", "format": "binary"}}
    failures = _errors(*(_REASONS if has_caller else (400,)))
    operation: Schema = {
        "summary": summary,
        "tags": [tag],
        "responses": {"200": {"description": "Done.", "content": kinds}, **failures},
    }
    if request is not None:
        kinds = {_JSON: {"schema": request}}
        if is_binary:
            kinds[_BINARY] = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": is_required, "content": kinds}
    if is_binary:
        operation["parameters"] = [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "description": "Length of the JSON before the bytes; 0 = there is none.",
                "schema": _SIZE,
            }
        ]
    if not has_caller:
        operation["security"] = []
    return operation


def _path(operations: Schema, *names: str) -> Schema:
    if not names:
        return operations
    schema = {"type": "string", "minLength": 1, "pattern": "^[^/]+$"}
    parameters = [{"name": n, "in": "path", "required": True, "schema": schema} for n in names]
    return {"parameters": parameters, **operations}


def _model_paths() -> Schema:
    any_, text = _ref("Any"), _ref("Text")
    infer = _operation(
        "Infer",
        "inference",
        _ref("InferResponse"),
        request=_ref("InferRequest"),
        is_binary=True,
    )
    routes: dict[str, Schema] = {
        "/infer": {"post": infer},
        "/generate": {
            "post": _operation("Generate: one response", "inference", any_, request=any_)
        },
        "/generate_stream": {"post": _stream(any_)},
        "": {"get": _operation("Metadata of a model", "models", any_)},
        "/ready": {"get": _operation("Whether a model is ready", "health", any_)},
        "/config": {"get": _operation("Configuration of a model", "models", any_)},
        "/stats": {"get": _operation("Statistics of a model", "models", any_)},
    }
    paths: Schema = {}
    for suffix, operations in routes.items():
        paths[f"/v2/models/{{model}}{suffix}"] = _path(operations, "model")
        path = f"/v2/models/{{model}}/versions/{{version}}{suffix}"
        paths[path] = _path(operations, "model", "version")
    traces = {
        "get": _operation("Trace settings of a model", "settings", any_),
        "post": _operation("Change them", "settings", any_, request=text, is_required=False),
    }
    paths["/v2/models/{model}/trace/setting"] = _path(traces, "model")
    return paths


def _stream(request: Schema) -> Schema:
    operation = _operation(
        "Generate: responses as server-sent events", "inference", request, request=request
    )
    operation["responses"]["200"]["content"] = {"text/event-stream": {"schema": _TEXT}}
    return operation


def _server_paths() -> Schema:
    any_, text = _ref("Any"), _ref("Text")
    ready = _object({"ready": _FLAG}, ("ready",))
    probe = _operation("Whether the server is ready", "health", ready, has_caller=False)
    live = _object({"live": _FLAG}, ("live",))
    index = _operation(
        "Models of the repositories",
        "repository",
        _array(any_),
        request=_object({"ready": _FLAG}),
        is_required=False,
    )
    changes = _object({"parameters": {"type": "object", "additionalProperties": True}})
    logs = _operation("Change them", "settings", any_, request=any_, is_required=False)
    traces = _operation("Change them", "settings", any_, request=text, is_required=False)
    paths = {
        "/v2/health/live": {
            "get": _operation("Whether it lives", "health", live, has_caller=False)
        },
        "/v2/health/ready": {"get": probe},
        "/v2": {"get": _operation("Metadata of the server", "server", any_)},
        "/v2/models/stats": {"get": _operation("Statistics of all models", "models", any_)},
        "/v2/logging": {"get": _operation("Log settings", "settings", any_), "post": logs},
        "/v2/trace/setting": {
            "get": _operation("Trace settings", "settings", any_),
            "post": traces,
        },
        "/v2/repository/index": {"post": index},
    }
    for verb in ("load", "unload"):
        operation = _operation(
            f"{verb.capitalize()} a model",
            "repository",
            any_,
            request=changes,
            is_required=False,
        )
        path = f"/v2/repository/models/{{model}}/{verb}"
        paths[path] = _path({"post": operation}, "model")
    return paths


def _memory_paths() -> Schema:
    any_ = _ref("Any")
    bodies = {
        "system": _object({"key": _TEXT, "offset": _SIZE, "byte_size": _SIZE}, ("byte_size",)),
        "cuda": _object(
            {"raw_handle": _object({"b64": _TEXT}), "device_id": _SIZE, "byte_size": _SIZE},
            ("byte_size",),
        ),
    }
    paths: Schema = {}
    for kind, body in bodies.items():
        base = f"/v2/{kind}sharedmemory"
        status = {"get": _operation("Regions", "shared memory", _array(any_))}
        register = _operation("Register a region", "shared memory", any_, request=body)
        unregister = {"post": _operation("Unregister", "shared memory", any_)}
        paths[f"{base}/status"] = status
        paths[f"{base}/unregister"] = unregister
        paths[f"{base}/region/{{region}}/status"] = _path(status, "region")
        paths[f"{base}/region/{{region}}/register"] = _path({"post": register}, "region")
        paths[f"{base}/region/{{region}}/unregister"] = _path(unregister, "region")
    return paths


def _cloud_paths() -> Schema:
    ready = _object({"ready": _FLAG}, ("ready",))
    invocations = _operation(
        "Infer with the default model; instances are answered with predictions",
        "clouds",
        _ref("Any"),
        request=_ref("Any"),
        is_binary=True,
    )
    ping = _operation("Whether the server is ready", "clouds", ready, has_caller=False)
    return {"/ping": {"get": ping}, "/invocations": {"post": invocations}}


@cache
def document() -> Schema:
    """The document. Do not change it: it is made once."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock",
            "version": _VERSION,
            "description": "The Open Inference (KServe v2) protocol with Triton's extensions.",
        },
        "security": [{}, {"key": []}, {"bearer": []}],
        "paths": {**_server_paths(), **_model_paths(), **_memory_paths(), **_cloud_paths()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }
