"""How a row becomes a request, and an answer values: of each protocol that some peer speaks."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from peers.workload import Array, Workload
from tritonclient.grpc import service_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Request:
    """As it is sent: `path` of HTTP or of gRPC."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Protocol(ABC):
    """One row in a request, one in its answer."""

    is_grpc = False

    @abstractmethod
    def encode(self, work: Workload, row: Array) -> Request:
        """The request for a row."""

    @abstractmethod
    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        """The answer's values, flat. Anything may be raised of an answer that is none."""


class OpenInferenceGrpc(Protocol):
    """The Open Inference protocol, raw contents."""

    is_grpc = True

    def encode(self, work: Workload, row: Array) -> Request:
        message = service_pb2.ModelInferRequest(model_name=work.name)
        message.inputs.add(name=work.input, datatype="FP32", shape=[1, *row.shape])
        message.outputs.add(name=work.output)
        message.raw_input_contents.append(row.tobytes())
        return Request(INFER, message.SerializeToString())

    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        answer = service_pb2.ModelInferResponse.FromString(body)
        if answer.raw_output_contents:
            return np.frombuffer(answer.raw_output_contents[0], np.float32)
        return np.array(answer.outputs[0].contents.fp32_contents, np.float32)


class OpenInferenceHttp(Protocol):
    """Its HTTP form, with the binary tensor data extension or as plain JSON."""

    def __init__(self, *, binary: bool = True) -> None:
        self.is_binary = binary

    def encode(self, work: Workload, row: Array) -> Request:
        path = f"/v2/models/{work.name}/infer"
        shape = [1, *row.shape]
        tensor: dict[str, object] = {"name": work.input, "shape": shape, "datatype": "FP32"}
        output: dict[str, object] = {"name": work.output}
        if not self.is_binary:
            head = {"inputs": [{**tensor, "data": row.ravel().tolist()}], "outputs": [output]}
            return Request(path, json.dumps(head).encode(), {"Content-Type": "application/json"})
        tensor["parameters"] = {"binary_data_size": row.nbytes}
        output["parameters"] = {"binary_data": True}
        text = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(text)),
        }
        return Request(path, text + row.tobytes(), headers)

    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        length = headers.get("inference-header-content-length")
        if length is not None:
            return np.frombuffer(body[int(length) :], np.float32)
        return np.array(json.loads(body)["outputs"][0]["data"], np.float32).ravel()


@dataclass(frozen=True)
class RawHttp(Protocol):
    """A body of the row's bytes; so is the answer."""

    path: str

    def encode(self, work: Workload, row: Array) -> Request:
        return Request(self.path, row.tobytes(), {"Content-Type": "application/octet-stream"})

    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        return np.frombuffer(body, np.float32)
