"""The RPCs of inference.GRPCInferenceService that do not infer, and the registration of all.

A handler is an async function from request bytes to response bytes; `ServiceHandlers.methods` wraps
it with admission and with the translation of errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc

from penstock import codec
from penstock.frontend.gate import RPC_GROUPS, Gate
from penstock.frontend.inference import InferenceHandlers
from penstock.frontend.readiness import Readiness
from penstock.frontend.settings import Logs, SettingsHandlers
from penstock.frontend.shared_memory import SharedMemoryHandlers
from penstock.frontend.status import abort

__all__ = ["ControlHandlers", "ModelControl", "method_handlers", "register"]

Handler = Callable[[bytes], Awaitable[bytes]]
Before = Callable[[bytes, Any], Awaitable[None]]
After = Callable[[bytes, Any], None]

_LOADS = ("penstock-load-on-demand", "true")
"""Metadata of the gateway's, where it wants to know a model that it is about to ask."""
_RUNS_ON = "penstock-runs-on"
"""Trailing metadata of ModelMetadata: the message has no field for it, nor may it have ours."""


class ModelControl(Protocol):
    """What of the model manager the service needs."""

    def ready(self, name: str, version: str = "") -> bool:
        """Whether the version serves; False for what is unknown."""

    def metadata(self, name: str, version: str = "") -> codec.ModelMetadata:
        """Tensors and served versions."""

    async def bring(self, name: str, version: str = "") -> None:
        """Has a model loaded that a request would load; nothing for any other."""

    def config(self, name: str, version: str = "") -> codec.ModelConfig:
        """The completed configuration."""

    def statistics(self, name: str = "", version: str = "") -> list[codec.VersionStatistics]:
        """Counters; an empty name means all models."""

    async def index(
        self, *, ready_only: bool = False, repository_name: str = ""
    ) -> list[codec.IndexEntry]:
        """Every model of the repositories."""

    async def load(
        self,
        name: str,
        *,
        config_json: str | None = None,
        files: Sequence[str] = (),
        repository_name: str = "",
    ) -> None:
        """Returns when the model serves; goes on when its caller leaves."""

    async def unload(
        self, name: str, *, unload_dependents: bool = False, repository_name: str = ""
    ) -> None:
        """Returns when the model takes no new requests."""


class ControlHandlers:
    """Health, metadata, statistics, the repository, settings and shared memory.

    Threading: confined to the event loop.
    Ownership: borrows everything.
    """

    def __init__(
        self,
        models: ModelControl,
        readiness: Readiness,
        logs: Logs,
        shared_memory: SharedMemoryHandlers,
        *,
        server_name: str,
        server_version: str,
    ) -> None:
        self._models = models
        self._readiness = readiness
        self._settings = SettingsHandlers(logs, models.ready)
        self._shared_memory = shared_memory
        self._server_name = server_name
        self._server_version = server_version

    async def server_live(self, request: bytes) -> bytes:
        """True: the loop runs."""
        codec.check_request("ServerLive", request)
        return codec.encode_server_live(True)

    async def server_ready(self, request: bytes) -> bytes:
        """As `Readiness` says."""
        codec.check_request("ServerReady", request)
        return codec.encode_server_ready(self._readiness.is_ready)

    async def model_ready(self, request: bytes) -> bytes:
        """False, not an error, for what is unknown."""
        ref = codec.parse_model_request("ModelReady", request)
        return codec.encode_model_ready(self._models.ready(ref.name, ref.version))

    async def server_metadata(self, request: bytes) -> bytes:
        """Name, version, extensions."""
        codec.check_request("ServerMetadata", request)
        extensions = (*codec.EXTENSIONS, *await self._shared_memory.extensions())
        return codec.encode_server_metadata(self._server_name, self._server_version, extensions)

    async def model_metadata(self, request: bytes) -> bytes:
        """Tensors as clients see them."""
        ref = codec.parse_model_request("ModelMetadata", request)
        return codec.encode_model_metadata(self._models.metadata(ref.name, ref.version))

    def runs_on(self, request: bytes) -> str:
        """Where the model of a ModelMetadata request computes, as metadata may say it.

        A device has any name, and gRPC takes printable ASCII alone, without spaces at the ends.
        """
        ref = codec.parse_model_request("ModelMetadata", request)
        text = self._models.metadata(ref.name, ref.version).runs_on
        return "".join(each if " " <= each <= "~" else "?" for each in text).strip()

    async def bring_model(self, request: bytes) -> None:
        """Before its metadata: loads a model that a request would load."""
        ref = codec.parse_model_request("ModelMetadata", request)
        await self._models.bring(ref.name, ref.version)

    async def model_config(self, request: bytes) -> bytes:
        """The configuration after completion."""
        ref = codec.parse_model_request("ModelConfig", request)
        return codec.encode_model_config(self._models.config(ref.name, ref.version))

    async def model_statistics(self, request: bytes) -> bytes:
        """Counters of one model or all."""
        ref = codec.parse_model_request("ModelStatistics", request)
        return codec.encode_statistics(self._models.statistics(ref.name, ref.version))

    async def repository_index(self, request: bytes) -> bytes:
        """What the repositories hold, with states."""
        asked = codec.parse_index_request(request)
        entries = await self._models.index(
            ready_only=asked.ready_only, repository_name=asked.repository_name
        )
        return codec.encode_index(entries)

    async def repository_model_load(self, request: bytes) -> bytes:
        """Loads or reloads; answers when the model serves."""
        load = codec.parse_load_request(request)
        await self._models.load(
            load.model_name,
            config_json=load.config_json,
            files=load.files,
            repository_name=load.repository_name,
        )
        return codec.encode_load_response(load.model_name)

    async def repository_model_unload(self, request: bytes) -> bytes:
        """Stops serving a model."""
        unload = codec.parse_unload_request(request)
        await self._models.unload(
            unload.model_name,
            unload_dependents=unload.unload_dependents,
            repository_name=unload.repository_name,
        )
        return codec.encode_unload_response(unload.model_name)

    def by_rpc(self) -> Mapping[str, Handler]:
        """The handlers by RPC name: every one that does not infer."""
        return {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_model_load,
            "RepositoryModelUnload": self.repository_model_unload,
            **self._settings.by_rpc(),
            **self._shared_memory.by_rpc(),
        }


def method_handlers(
    inference: InferenceHandlers, control: ControlHandlers, gate: Gate
) -> dict[str, Any]:
    """One grpc.RpcMethodHandler for each RPC of the service. All of them take and return bytes."""
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(inference.model_infer),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(inference.model_stream_infer),
    }
    supported = control.by_rpc()
    for name in codec.METHODS:
        if name not in handlers:
            before, after = None, None
            if name == "ModelMetadata":
                before, after = _bring(control, gate), _tell_place(control)
            handlers[name] = _guarded(name, supported[name], gate, before, after)
    return handlers


def register(server: Any, handlers: Mapping[str, Any]) -> None:
    """Registers the service with a server of either transport, as generated code would."""
    generic = grpc.method_handlers_generic_handler(codec.SERVICE_NAME, dict(handlers))
    server.add_generic_rpc_handlers((generic,))
    server.add_registered_method_handlers(codec.SERVICE_NAME, dict(handlers))


def _guarded(
    name: str,
    behaviour: Handler,
    gate: Gate,
    before: Before | None = None,
    after: After | None = None,
) -> Any:
    async def handle(request: bytes, context: Any) -> bytes:
        try:
            await gate.admit(RPC_GROUPS[name], len(request), context)
            context.disable_next_message_compression()  # what is set is for responses of inference
            if before is not None:
                await before(request, context)
            answer = await behaviour(request)
            if after is not None:
                after(request, context)
            return answer
        except Exception as error:
            await abort(context, error, name)

    return grpc.unary_unary_rpc_method_handler(handle)


def _bring(control: ControlHandlers, gate: Gate) -> Before:
    """Whoever is about to infer, and may, has the model loaded; its metadata alone loads none."""

    async def bring(request: bytes, context: Any) -> None:
        pairs = context.invocation_metadata() or ()
        if _LOADS in {(pair[0], pair[1]) for pair in pairs}:
            await gate.authorize(RPC_GROUPS["ModelInfer"], context)
            await control.bring_model(request)

    return bring


def _tell_place(control: ControlHandlers) -> After:
    """Trailing metadata of what the model runs on, which other clients pass over."""

    def tell(request: bytes, context: Any) -> None:
        if place := control.runs_on(request):
            context.set_trailing_metadata(((_RUNS_ON, place),))

    return tell
