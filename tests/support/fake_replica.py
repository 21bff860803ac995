"""A server's metrics as a test wants them: counters that are set, or an answer that is none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.loopback_server import loopback_server

_GAUGES = ("pending", "running", "instances")
_NAMES = {
    "success": "nv_inference_request_success",
    "busy_s": "penstock_instance_busy_seconds_total",
    "pending": "penstock_pending_requests",
    "running": "penstock_running_requests",
    "instances": "penstock_instances",
}


@dataclass
class FakeReplica:
    """Answers every request with `text()`, or as `fault` says: a reply of bytes, or "silent"."""

    models: dict[str, dict[str, float]] = field(default_factory=dict)
    fault: bytes | str = ""
    port: int = 0
    extra: str = ""
    asked: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def text(self) -> str:
        lines = ["# HELP python_info of no interest", 'python_info{version="3"} 1', self.extra]
        for model, values in self.models.items():
            for key, value in {"instances": 1, **values}.items():
                lines.append(f'{_NAMES[key]}{{model="{model}",version="1"}} {value}')
        return "\n".join(lines) + "\n"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await reader.readuntil(b"\r\n\r\n")
        if self.fault == "silent":
            await reader.read()  # until the one who asked gives up
            return
        body = self.text().encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        writer.write(self.fault if isinstance(self.fault, bytes) else head + body)
        await writer.drain()


@asynccontextmanager
async def fake_replica(**models: dict[str, float]) -> AsyncIterator[FakeReplica]:
    """A replica on a free port; keyword arguments are models and their counters."""
    replica = FakeReplica(dict(models))
    async with loopback_server(replica.answer) as server:
        replica.port = server.sockets[0].getsockname()[1]
        yield replica
