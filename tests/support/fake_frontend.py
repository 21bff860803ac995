"""The frontend on a real port, with fakes behind it: what the wire does, without models.

The native transport answers ModelInfer and ModelStreamInfer itself, without Python: there, the
handlers of both are registered under another service's name, and clients made here call them so.
What the core makes of the two is tested with models.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.raw_grpc import RawClient, raw_client

from penstock import codec
from penstock.config import ServerConfig
from penstock.core import Caller, Core, StreamReply
from penstock.errors import CoreError, NotFoundError, UnavailableError
from penstock.frontend.gate import Gate
from penstock.frontend.grpcio import GrpcioTransport
from penstock.frontend.health import register_health
from penstock.frontend.inference import InferenceHandlers
from penstock.frontend.native import NativeTransport
from penstock.frontend.readiness import Readiness
from penstock.frontend.reflection import register_reflection
from penstock.frontend.service import ControlHandlers, method_handlers, register
from penstock.frontend.shared_memory import SharedMemoryHandlers
from penstock.observe.log import LogSettings
from penstock.observe.log_control import LogControl

ALIAS = "test.Inference"


async def echo(request: bytes) -> bytes:
    return b"reply to " + request


@dataclass
class FakeCore:
    """Answers with `answer`; remembers what it was asked and what was cancelled."""

    answer: Callable[[bytes], Awaitable[bytes]] = echo
    asked: list[bytes] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)
    deadlines: list[int] = field(default_factory=list)
    admitted: list[tuple[str, int]] = field(default_factory=list)
    refusal: CoreError | None = None
    refused_group: str = ""  # of RPCs; "" = all
    registered: dict[str, tuple[str, str, int, int]] = field(default_factory=dict)
    registered_on_gpus: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    handles: list[bytes] = field(default_factory=list)
    has_gpu: bool = False
    failing_regions: CoreError | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    is_active: bool = False  # as an access policy

    async def infer(self, request: bytes, deadline: int = 0, caller: object = None) -> bytes:
        self.asked.append(request)
        self.deadlines.append(deadline)
        self.arrived.set()
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cancelled.append(request)
            self.left.set()
            raise

    async def stream_infer(
        self, request: bytes, deadline: int = 0, caller: object = None
    ) -> StreamReply:
        try:
            return StreamReply(await self.infer(request, deadline), 0, "")
        except CoreError as error:
            return StreamReply(b"error: " + error.message.encode(), error.code, error.message)

    def identify(self, metadata: object, connection: str) -> Caller:
        raise AssertionError("nobody wants to know who calls")

    def needs_verification(self, group: str, caller: Caller) -> bool:
        raise AssertionError("nobody wants to know who calls")

    def authorize(self, group: str, caller: Caller | None = None) -> None:
        if self.refusal is not None and self.refused_group in ("", group):
            raise self.refusal

    def check_shared_memory(self) -> None:
        if self.failing_regions is not None:
            raise self.failing_regions

    async def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        self.check_shared_memory()
        self.registered[name] = (name, key, offset, byte_size)

    async def unregister_region(self, name: str) -> None:
        self.check_shared_memory()
        for each in [name] if name else list(self.registered):
            self.registered.pop(each, None)

    def regions(self, name: str) -> list[tuple[str, str, int, int]]:
        self.check_shared_memory()
        return [self.registered[name]] if name else list(self.registered.values())

    async def check_cuda_memory(self) -> None:
        if not self.has_gpu:
            raise UnavailableError("there is no GPU")

    async def register_cuda_region(
        self, name: str, handle: bytes, device_id: int, byte_size: int
    ) -> None:
        self.check_shared_memory()
        self.handles.append(handle)
        self.registered_on_gpus[name] = (name, device_id, byte_size)

    async def unregister_cuda_region(self, name: str) -> None:
        self.check_shared_memory()
        for each in [name] if name else list(self.registered_on_gpus):
            self.registered_on_gpus.pop(each, None)

    def cuda_regions(self, name: str) -> list[tuple[str, int, int]]:
        self.check_shared_memory()
        regions = self.registered_on_gpus
        return [regions[name]] if name else list(regions.values())

    def admit(self, group: str, size_bytes: int, caller: Caller | None = None) -> None:
        self.admitted.append((group, size_bytes))
        self.authorize(group, caller)


@dataclass
class FakeModels:
    """One model `m`, version 1."""

    is_ready: bool = True
    failure: Exception | None = None
    calls: list[tuple[object, ...]] = field(default_factory=list)
    on_change: Callable[[], None] = lambda: None

    def ready(self, name: str, version: str = "") -> bool:
        return name == "m" and version in ("", "1")

    async def bring(self, name: str, version: str = "") -> None:
        self.calls.append(("bring", name, version))

    def metadata(self, name: str, version: str = "") -> codec.ModelMetadata:
        self._check(name)
        return codec.ModelMetadata(name, ("1",), "onnxruntime_onnx", (), ())

    def config(self, name: str, version: str = "") -> codec.ModelConfig:
        self._check(name)
        return codec.ModelConfig(name=name, backend="onnxruntime")

    def statistics(self, name: str = "", version: str = "") -> list[codec.VersionStatistics]:
        if name:
            self._check(name)
        return []

    async def index(
        self, *, ready_only: bool = False, repository_name: str = ""
    ) -> list[codec.IndexEntry]:
        self.calls.append(("index", ready_only, repository_name))
        return [codec.IndexEntry("m", "1", "READY")]

    async def load(
        self,
        name: str,
        *,
        config_json: str | None = None,
        files: Sequence[str] = (),
        repository_name: str = "",
    ) -> None:
        self.calls.append(("load", name, config_json, tuple(files), repository_name))
        if self.failure is not None:
            raise self.failure

    async def unload(
        self, name: str, *, unload_dependents: bool = False, repository_name: str = ""
    ) -> None:
        self.calls.append(("unload", name, unload_dependents, repository_name))
        self.is_ready = False
        self.on_change()

    def _check(self, name: str) -> None:
        if self.failure is not None:
            raise self.failure
        if name != "m":
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")


@dataclass
class FakeServer:
    """A frontend that serves."""

    core: FakeCore
    models: FakeModels
    readiness: Readiness
    transport: GrpcioTransport | NativeTransport
    infer_service: str
    logs_applied: list[LogSettings]

    @property
    def address(self) -> str:
        return self.transport.address

    def client(self, **options: int) -> AbstractAsyncContextManager[RawClient]:
        """A client of bytes on a connection of its own."""
        return raw_client(self.address, self.infer_service, **options)

    def path(self, rpc: str) -> str:
        """Where ModelInfer or ModelStreamInfer is."""
        return f"/{self.infer_service}/{rpc}"


@asynccontextmanager
async def serve_frontend(**settings: object) -> AsyncIterator[FakeServer]:
    """A started frontend over gRPC, ready."""
    transport_name = os.environ["PENSTOCK_TRANSPORT"]
    values = {"model_repository": (Path("unused"),), "grpc_port": 0, **settings}
    config = ServerConfig(**values)  # type: ignore[arg-type]
    core, models = FakeCore(), FakeModels()
    readiness = Readiness(lambda: models.is_ready)
    models.on_change = readiness.announce
    gate = Gate(core)
    engine = Core(backend_directories=[]) if transport_name == "native" else None
    transport = (
        GrpcioTransport(config)
        if engine is None
        else NativeTransport(config, engine.make_transport, gate)
    )
    inference = InferenceHandlers(core, readiness, gate, config.max_inflight_per_stream)
    applied: list[LogSettings] = []
    logs = LogControl(LogSettings(), applied.append)
    memory = SharedMemoryHandlers(core, is_allowed=config.allow_client_shm)
    control = ControlHandlers(
        models, readiness, logs, memory, server_name="fake", server_version="9"
    )
    handlers = method_handlers(inference, control, gate)
    register(transport.server, handlers)
    transport.server.add_registered_method_handlers(ALIAS, handlers)
    register_health(transport.server, readiness, gate)
    register_reflection(transport.server, readiness, gate)
    transport.bind()
    await transport.start()
    readiness.start()
    infer_service = codec.SERVICE_NAME if engine is None else ALIAS
    try:
        yield FakeServer(core, models, readiness, transport, infer_service, applied)
    finally:
        await transport.stop(0)
        if engine is not None:
            await engine.close()
