"""The load: penstock-load for gRPC, micro/http_load for HTTP/1.1, whose reports are the same."""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure
from peers.peer import Route
from peers.protocols import Request

HTTP_LOAD = _measure.ROOT / "build/release/bench/micro/http_load"
GRPC_CONNECTIONS = 4
"""As of a few clients; HTTP/1.1 takes one for each request in flight."""
HTTP_CONNECTIONS = 64
"""Of the open loop: what finds none free waits, and its latency counts the wait."""


@dataclass(frozen=True)
class Point:
    """`concurrency` in flight, or `rate` a second (Poisson) if that is not 0."""

    concurrency: int
    rate: int = 0

    @classmethod
    def parse(cls, name: str) -> Point:
        """From "c16" or "r200"."""
        kind, number = name[0], int(name[1:])
        return cls(number) if kind == "c" else cls(0, number)


def load(
    route: Route, request: Request, point: Point, requests: int, folder: Path
) -> dict[str, Any]:
    """One run: the generator's report, and `client_us`, its own CPU time for a request.

    Raises:
        RuntimeError: the generator could not begin; with its own words.
    """
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    (folder / "body").write_bytes(request.body)
    make = _grpc_command if route.protocol.is_grpc else _http_command
    command = make(route, request, point, requests, folder)
    before_s = _children_cpu_s()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    used_s = _children_cpu_s() - before_s
    if not report.exists():
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr or done.stdout}")
    found: dict[str, Any] = json.loads(report.read_text())
    found["client_us"] = used_s / max(1, found["sent"]) * 1e6
    return found


def _grpc_command(
    route: Route, request: Request, point: Point, requests: int, folder: Path
) -> list[Any]:
    connections = min(GRPC_CONNECTIONS, point.concurrency or GRPC_CONNECTIONS)
    command = [_measure.LOAD, "--address", route.address, "--path", request.path]
    command += ["--request", folder / "body", "--connections", connections]
    command += ["--requests", requests, "--json", folder / "report.json"]
    if point.rate:
        return [*command, "--rate", point.rate]
    return [*command, "--concurrency", point.concurrency]


def _http_command(
    route: Route, request: Request, point: Point, requests: int, folder: Path
) -> list[Any]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    (folder / "headers").write_bytes(lines.encode())
    connections = point.concurrency or HTTP_CONNECTIONS
    command = [HTTP_LOAD, route.address, request.path, folder / "body", folder / "headers"]
    return [*command, connections, point.rate, requests, folder / "report.json"]


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def first_failure(report: dict[str, Any]) -> str:
    """What went wrong in a run, "" if nothing did."""
    texts = [
        f"{each['count']} of {report['sent']} requests: {kind}: {each['first']}"[:200]
        for kind, each in report["failures"].items()
    ]
    if report["ended_early"]:
        texts.append(f"ended early: {report['ended_early']}")
    return "; ".join(texts)
