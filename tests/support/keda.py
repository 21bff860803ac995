"""KEDA's side of its external scaler protocol: a client that protoc generates from the proto."""

import importlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from grpc_tools import protoc

_PROTO = Path(__file__).resolve().parents[2] / "proto" / "keda"


@cache
def generated() -> tuple[ModuleType, ModuleType]:
    """The messages' and the service's module, generated as KEDA generates its own in Go."""
    with tempfile.TemporaryDirectory() as folder:
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={_PROTO}",
                f"--python_out={folder}",
                f"--grpc_python_out={folder}",
                str(_PROTO / "externalscaler.proto"),
            ]
        )
        assert status == 0
        sys.path.insert(0, folder)
        try:
            messages = importlib.import_module("externalscaler_pb2")
            return messages, importlib.import_module("externalscaler_pb2_grpc")
        finally:
            sys.path.remove(folder)


class Keda:
    """Asks as KEDA does for one trigger of one ScaledObject."""

    def __init__(self, channel: grpc.aio.Channel, **metadata: str) -> None:
        self._pb, services = generated()
        self._stub: Any = services.ExternalScalerStub(channel)
        metadata.setdefault("scalerAddress", "penstock-scaler:8003")
        self._object = self._pb.ScaledObjectRef(
            name="penstock", namespace="default", scalerMetadata=metadata
        )

    async def is_active(self) -> bool:
        return bool((await self._stub.IsActive(self._object)).result)

    async def spec(self) -> tuple[str, int, float]:
        (spec,) = (await self._stub.GetMetricSpec(self._object)).metricSpecs
        return spec.metricName, spec.targetSize, spec.targetSizeFloat

    async def metric(self, name: str = "") -> tuple[int, float]:
        request = self._pb.GetMetricsRequest(
            scaledObjectRef=self._object, metricName=name or (await self.spec())[0]
        )
        (value,) = (await self._stub.GetMetrics(request)).metricValues
        return value.metricValue, value.metricValueFloat

    def stream(self) -> Any:
        return self._stub.StreamIsActive(self._object)


@asynccontextmanager
async def keda_channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
