"""LitServe's side: a body is one row's bytes, and so is the answer."""

import os
from typing import Annotated

import litserve as ls
import numpy as np
from engine import Engine, setting
from fastapi import Body, Response


class Model(ls.LitAPI):
    """One worker; its batches are lists of rows."""

    def setup(self, device):
        self.engine = Engine()
        self.is_batched = setting("batch", 1) > 1

    def decode_request(self, request: Annotated[bytes, Body()]):
        return self.engine.row(request)

    def predict(self, x):
        return self.engine.run(x) if self.is_batched else self.engine.run(x[None])[0]

    def batch(self, inputs):
        return np.stack(inputs)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Model(max_batch_size=int(setting("batch", 1)), batch_timeout=setting("wait_ms", 0) / 1000)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_HTTP_PORT"]),
        num_api_servers=int(setting("api_servers", 1)),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
