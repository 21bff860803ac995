"""Ray Serve's side: a body is one row's bytes, and so is the answer."""

import os
import signal

import numpy as np
import ray
from engine import Engine, setting
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

BATCH = int(setting("batch", 1))


@serve.deployment(num_replicas=1, max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Model:
    """One replica."""

    def __init__(self):
        self.engine = Engine()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=setting("wait_ms", 1) / 1000)
    async def run(self, rows):
        return list(self.engine.run(np.stack(rows)))

    async def __call__(self, request: Request):
        row = self.engine.row(await request.body())
        answer = await self.run(row) if BATCH > 1 else self.engine.run(row[None])[0]
        return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {k: v for k, v in os.environ.items() if k.startswith("PEER_")}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_HTTP_PORT"])})
    serve.run(Model.bind(), logging_config={"enable_access_log": False, "log_level": "WARNING"})
    signal.sigwait({signal.SIGTERM})
