"""The run: rounds of all servers, each started, checked, loaded, checked and ended in turn."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _measure
import psutil
from peers import load, serving, table
from peers.load import Point
from peers.peer import HOME, Peer, Route
from peers.protocols import OpenInferenceGrpc, RawHttp
from peers.workload import Workload

_SATURATED = 0.95
"""An open loop at over this part of the closed loop's rate is not tried: its queue only grows."""
_FIRST_REQUESTS = 200
_TROUBLES = (
    serving.PeerFailure,
    psutil.Error,
    RuntimeError,
    OSError,
    subprocess.SubprocessError,
)
"""Of one server; the others go on."""


@dataclass(frozen=True)
class Contestant:
    """One server of one round."""

    peer: Peer
    variant: str
    work: Workload

    @property
    def name(self) -> str:
        return f"{self.work.name} {self.peer.name} {self.variant}".strip()


@dataclass
class Run:
    """What was asked for, and the raw results so far.

    Attributes:
        results: `points`, `starts`, `failures`, lists of flat records; `skipped` by peer.
        known: rates by contestant, route and point; the next run there is as long as that asks for.
    """

    peers: list[Peer]
    works: list[Workload]
    rounds: int
    seconds: float
    results: dict[str, Any] = field(
        default_factory=lambda: {"points": [], "starts": [], "failures": [], "skipped": {}}
    )
    known: dict[str, float] = field(default_factory=dict)

    def contestants(self) -> list[Contestant]:
        """Of a round."""
        return [
            Contestant(peer, variant, work)
            for work in self.works
            for peer in self.peers
            for variant in peer.variants_for(work)
        ]

    def execute(self, progress: Callable[[str], None]) -> None:
        """All of it; `progress` hears of each contestant before its turn, and "" at the end."""
        homes = self._install(progress)
        self.peers = [peer for peer in self.peers if peer.name in homes]
        if any(not peer.packages for peer in self.peers):
            self.results["ceilings"] = ceilings(self.seconds)
        for round_ in range(self.rounds):
            order = self.contestants()
            for each in order if round_ % 2 == 0 else reversed(order):
                progress(f"round {round_ + 1}: {each.name}")
                try:
                    self._turn(round_, each, homes[each.peer.name])
                except _TROUBLES as error:
                    self._failed(round_, each, str(error))
        self.results["is_whole"] = True
        progress("")

    def _install(self, progress: Callable[[str], None]) -> dict[str, Path]:
        homes = {}
        for peer in self.peers:
            progress(f"installing {peer.name}")
            try:
                homes[peer.name] = serving.install(peer)
            except serving.PeerFailure as failure:
                self.results["skipped"][peer.name] = str(failure)
        return homes

    def _failed(self, round_: int, each: Contestant, why: str) -> None:
        record = {"round": round_, **_key(each), "why": why.strip()}
        self.results["failures"].append(record)

    def _turn(self, round_: int, each: Contestant, home: Path) -> None:
        log = HOME / "logs" / f"{each.name.replace(' ', '_').replace(',', '')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        with _scratch() as scratch, _scratch() as files:
            place = serving.new_place(each.peer, home, scratch, each.work, each.variant)
            with serving.running(each.peer, place, log) as server:
                start = {"round": round_, **_key(each), "ready_s": server.ready_s}
                start["idle_mb"] = server.memory_mb()
                for route in server.routes:
                    serving.check_answers(route, each.work)
                    for point in each.work.points():
                        self._measure(round_, each, server, route, point, files)
                    serving.check_answers(route, each.work)
                start["loaded_mb"] = server.memory_mb()
                self.results["starts"].append(start)

    def _measure(  # noqa: PLR0913
        self,
        round_: int,
        each: Contestant,
        server: serving.Server,
        route: Route,
        name: str,
        files: Path,
    ) -> None:
        point, key = Point.parse(name), f"{each.name} {route.name}"
        request = route.protocol.encode(each.work, each.work.rows[0])
        record: dict[str, Any] = {"round": round_, **_key(each), "route": route.name, "point": name}
        if point.rate:
            most = self.known[f"{key} c{max(each.work.concurrency)}"]
            if point.rate > _SATURATED * most:
                self.results["points"].append({**record, "saturated_at": most})
                return
            count = max(table.P99_SAMPLES, int(point.rate * self.seconds))
        else:
            count = self._count(route, request, point, f"{key} {name}", files)
        before_s = server.cpu_s()
        report = load.load(route, request, point, count, files)
        cpu_us = (server.cpu_s() - before_s) / max(1, report["sent"]) * 1e6
        if why := load.first_failure(report):
            self._failed(round_, each, f"{route.name}, {name}: {why}")
        if not point.rate:
            self.known[f"{key} {name}"] = report["rate"]
        latency = report["latency_us"]
        record |= {"rate": report["rate"], "cpu_us": cpu_us, "client_us": report["client_us"]}
        record |= {"p50_ms": latency["p50"] / 1e3, "p99_ms": latency["p99"] / 1e3}
        record |= {"late_ms": report["sent_late_us"]["p99"] / 1e3}
        record |= {"sent": report["sent"], "failed": report["failed"]}
        self.results["points"].append(record)

    def _count(self, route: Route, request: Any, point: Point, key: str, files: Path) -> int:
        """Requests that take about the seconds asked for; a short run, to warm up, tells."""
        slow = len(request.body) > 100_000
        first = point.concurrency * (2 if slow else 4) if slow else _FIRST_REQUESTS
        rate = load.load(route, request, point, max(first, point.concurrency), files)["rate"]
        rate = max(rate, self.known.get(key, 0.0))
        return max(2 * point.concurrency, int(rate * self.seconds))


def _key(each: Contestant) -> dict[str, str]:
    return {"work": each.work.name, "peer": each.peer.name, "variant": each.variant}


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="peers-")  # short: Ray puts sockets there
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ceilings(seconds: float) -> dict[str, dict[str, float]]:
    """What the generators reach against bare echoes, 64 in flight; h2load's word beside theirs."""
    found: dict[str, dict[str, float]] = {}
    echo = [str(_measure.ROOT / ".venv/bin/python"), str(Path(__file__).with_name("http_echo.py"))]
    with _scratch() as files, _measure.server(echo, r"echo is ready: (\S+)") as (_, address):
        route = Route("HTTP", int(address[1].rpartition(":")[2]), RawHttp("/"))
        found["HTTP"] = _ceiling(route, bytes(256), files, seconds)
        count = int(found["HTTP"]["rate"] * seconds)
        found["HTTP"]["h2load"] = h2load_h1(route.address, files / "body", count)
    with _scratch() as files, _measure.http2_echo() as (_, address2):
        route = Route("gRPC", int(address2.rpartition(":")[2]), OpenInferenceGrpc())
        found["gRPC"] = _ceiling(route, bytes(300), files, seconds)
        body = files / "framed"
        body.write_bytes(_measure.grpc_frame(bytes(300)))
        count = int(found["gRPC"]["rate"] * seconds)
        clients = load.GRPC_CONNECTIONS
        path = "/inference.GRPCInferenceService/ModelInfer"
        found["gRPC"]["h2load"] = _measure.h2load(
            route.address, path, body, count, clients, 64 // clients
        )
    return found


def _ceiling(route: Route, body: bytes, files: Path, seconds: float) -> dict[str, float]:
    from peers.protocols import INFER, Request

    request = Request(INFER if route.protocol.is_grpc else "/", body)
    report = load.load(route, request, Point(64), 5_000, files)
    report = load.load(route, request, Point(64), max(5_000, int(report["rate"] * seconds)), files)
    return {"rate": report["rate"], "client_us": report["client_us"]}


def h2load_h1(address: str, body: Path, requests: int) -> float:
    """Requests a second of h2load over HTTP/1.1 on 64 connections."""
    command = ["h2load", "--h1", "-n", str(requests), "-c", "64", "-d", str(body)]
    done = subprocess.run(
        [*command, f"http://{address}/"], check=True, capture_output=True, text=True
    )
    return parse_h2load(done.stdout, requests)


def parse_h2load(output: str, requests: int) -> float:
    """The rate that h2load reports.

    Raises:
        RuntimeError: not all requests were answered with 2xx.
    """
    rate = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", output)
    good = re.search(r"status codes: (\d+) 2xx", output)
    if rate is None or good is None or int(good[1]) != requests:
        raise RuntimeError(f"h2load did not have all its answers:\n{output}")
    return float(rate[1])


def save(results: dict[str, Any], path: Path) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))
