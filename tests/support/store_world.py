"""A store, a server that serves an environment of it, and a client that asks."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from tests.support.models.onnx_files import add_constant
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton

from penstock.config import ServerConfig
from penstock.store.pushing import PushRequest, push_model
from penstock.store.records import Deployment, Reference, VersionRecord
from penstock.store.store import Store
from penstock.stored import inspect_model


@dataclass
class World:
    """A store, and where its files of this test are."""

    store: Store
    url: str
    place: Path

    def config(self, **settings: Any) -> ServerConfig:
        values = {"store": self.url, "environment": "prod", "store_poll_secs": 0.02, **settings}
        values.setdefault("store_cache", str(self.place / "cache"))
        return server_config(self.place, **{"model_repository": (), **values})

    def push(
        self, model: onnx.ModelProto | float = 1.0, golden: float | None = None, **more: Any
    ) -> VersionRecord:
        """Pushes a model, or one that adds a constant; with a request whose answer this is."""
        made = add_constant(model) if isinstance(model, float) else model
        path = self.place / "m.onnx"
        onnx.save(made, path)
        if golden is not None:
            tensor = {"datatype": "FP32", "shape": [1, 2]}
            request = {
                "inputs": [{"name": "INPUT0", "data": [0.0, 0.0], **tensor}],
                "outputs": [{"name": "OUTPUT0", "data": [golden, golden], **tensor}],
            }
            (self.place / "golden.json").write_text(json.dumps(request))
            more["goldens"] = [self.place / "golden.json"]
        request_ = PushRequest(name="m", path=path, **more)
        return push_model(self.store, request_, inspect_model, self.place)

    def deploy(self, reference: str, **more: Any) -> Deployment:
        return self.store.deploy(Reference.parse(reference), "prod", **more)

    async def settled(self, deployment: Deployment) -> Deployment:
        """The deployment, once a server has said how it went."""
        async with asyncio.timeout(60):
            while deployment.status == "REQUESTED":
                deployment = await asyncio.to_thread(self.store.deployment, deployment.id)
        return deployment


@dataclass
class Asked:
    server: RunningServer
    client: triton.InferenceServerClient

    async def answer(self, width: int = 2, datatype: str = "FP32") -> tuple[str, float]:
        """The version that answers, and what it adds."""
        given = InferInput("INPUT0", [1, width], datatype)
        given.set_data_from_numpy(np.zeros((1, width), np.float32))
        result = await self.client.infer("m", [given])
        return result.get_response().model_version, float(result.as_numpy("OUTPUT0")[0, 0])

    async def becomes(self, expected: tuple[str, float]) -> None:
        async with asyncio.timeout(60):
            while await self.answer() != expected:
                pass


@asynccontextmanager
async def serving(config: ServerConfig) -> AsyncIterator[Asked]:
    async with run_server(config) as server:
        async with triton.InferenceServerClient(server.grpc_address) as client:
            yield Asked(server, client)
