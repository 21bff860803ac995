"""KServe's side: the Open Inference protocol over HTTP and gRPC, on loopback only."""

import os

import grpc
import uvicorn
from engine import Engine
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid


class Served(Model):
    """One row at a time: the SDK has no batching."""

    def __init__(self, name):
        super().__init__(name)
        self.engine = Engine()
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        answer = self.engine.run(payload.inputs[0].as_numpy())
        output = InferOutput(self.engine.output, list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(payload.id or generate_uuid(), self.name, [output])


class LoopbackConfig(uvicorn.Config):
    """The SDK has no setting for the address that it listens on."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **{**settings, "host": "127.0.0.1"})


class LoopbackServer(grpc.aio._server.Server):
    """Likewise."""

    def add_insecure_port(self, address):
        return super().add_insecure_port(address.replace("[::]", "127.0.0.1"))


if __name__ == "__main__":
    uvicorn.Config = LoopbackConfig
    grpc.aio._server.Server = LoopbackServer
    ModelServer(
        http_port=int(os.environ["PEER_HTTP_PORT"]),
        grpc_port=int(os.environ["PEER_GRPC_PORT"]),
        workers=1,
        enable_latency_logging=False,
    ).start([Served(os.environ["PEER_NAME"])])
