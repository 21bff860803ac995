"""The RPCs of `inference.GRPCInferenceService` with everything they need: gRPC's and HTTP's."""

from __future__ import annotations

from typing import Any

from penstock.client_memory import ClientMemory
from penstock.config import ServerConfig
from penstock.core import Core
from penstock.frontend.gate import Gate
from penstock.frontend.inference import InferenceHandlers
from penstock.frontend.readiness import Readiness
from penstock.frontend.service import ControlHandlers, method_handlers
from penstock.frontend.shared_memory import SharedMemoryHandlers
from penstock.observe.log_control import LogControl
from penstock.repository.manager import ModelManager

__all__ = ["make_handlers"]


def make_handlers(
    config: ServerConfig,
    core: Core,
    memory: ClientMemory,
    models: ModelManager,
    readiness: Readiness,
    gate: Gate,
    logs: LogControl,
) -> dict[str, Any]:
    """A grpc.RpcMethodHandler for each RPC, from bytes to bytes."""
    inference = InferenceHandlers(core, readiness, gate, config.max_inflight_per_stream)
    control = ControlHandlers(
        models,
        readiness,
        logs,
        SharedMemoryHandlers(memory, is_allowed=config.allow_client_shm),
        server_name=config.server_name,
        server_version=config.server_version,
    )
    return method_handlers(inference, control, gate)
