"""A peer's environment, and one start of its server: ready, asked, weighed, ended with children."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import _measure
import grpc
import numpy as np
import psutil
from peers.family import Family
from peers.peer import HOME, Peer, Place, Route
from peers.protocols import Request
from peers.workload import Array, Workload

_READY_S = 120.0
_POLL_S = 0.02
_END_S = 20.0
_THREADS = 16
_MESSAGE_BYTES = 64 << 20


class PeerFailure(Exception):
    """A peer could not be installed, started or asked; the text says why."""


def install(peer: Peer) -> Path:
    """Its environment, made on the first call and whenever its packages change.

    Raises:
        PeerFailure: a program is missing, or pip failed.
    """
    home = HOME / peer.name
    if missing := [each for each in peer.programs if shutil.which(each) is None]:
        raise PeerFailure(f"{', '.join(missing)} is not installed")
    stamp, wanted = home / "ready", "\n".join(peer.packages)
    if not peer.packages or (stamp.exists() and stamp.read_text() == wanted):
        return home
    pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [*pip, "--disable-pip-version-check", *peer.pip_flags, *peer.packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise PeerFailure(f"installing failed: {_last_line(done.stderr)}")
    stamp.write_text(wanted)
    return home


@dataclass
class Server:
    """One that runs. `ready_s`: from the start of its process to the first right answer."""

    process: psutil.Process
    routes: list[Route]
    ready_s: float

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time of all its processes."""
        total = 0.0
        for each in self.tree():
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        """Resident, what processes share counted once (PSS), MiB."""
        total = 0
        for each in self.tree():
            try:
                total += each.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20


@contextmanager
def running(peer: Peer, place: Place, log: Path) -> Iterator[Server]:
    """A server that has answered rightly on every route; ended with its children behind the block.

    Raises:
        PeerFailure: it ended, or gave no right answer in time; with the last line of its log.
    """
    launch = peer.launch(place)
    family = Family()
    begin_s = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(
            launch.command,
            env=launch.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=place.scratch,
            start_new_session=True,
        )
    server = Server(psutil.Process(process.pid), peer.routes(place), 0.0)
    try:
        for index, route in enumerate(server.routes):
            _wait_ready(process, route, place.workload, log)
            if index == 0:
                server.ready_s = time.monotonic() - begin_s
        yield server
    finally:
        _end(process, family)


def _wait_ready(process: subprocess.Popen[bytes], route: Route, work: Workload, log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    why = "no answer"
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise PeerFailure(f"ended with {process.returncode}: {_last_line(log.read_text())}")
        try:
            with Client(route) as client:
                if is_right(client.ask(work, work.rows[0]), work.answers[0], work.tolerance):
                    return
            why = "a wrong answer"
        except Exception as error:  # whatever a server that is not up yet makes of it
            why = f"{type(error).__name__}: {error}"
        time.sleep(_POLL_S)  # it has no event for us
    raise PeerFailure(f"not ready on {route.name} in {_READY_S:.0f} s: {why[:300]}")


def _end(process: subprocess.Popen[bytes], family: Family) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    family.end()


class Client:
    """Asks one row at a time, to see that answers are right; not for load."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._channel: grpc.Channel | None = None
        self._connection: http.client.HTTPConnection | None = None
        if route.protocol.is_grpc:
            options = [
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ]
            self._channel = grpc.insecure_channel(route.address, options)
        else:
            self._connection = http.client.HTTPConnection("127.0.0.1", route.port, timeout=30)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._connection is not None:
            self._connection.close()

    def ask(self, work: Workload, row: Array) -> Array:
        """The answer's values. Raises whatever the transport or the decoder does."""
        request = self._route.protocol.encode(work, row)
        if self._channel is not None:
            call = self._channel.unary_unary(request.path, None, None)
            return self._route.protocol.decode({}, call(request.body, timeout=30))
        return self._ask_http(request)

    def _ask_http(self, request: Request) -> Array:
        assert self._connection is not None
        self._connection.request("POST", request.path, request.body, request.headers)
        reply = self._connection.getresponse()
        body = reply.read()
        if reply.status != 200:
            raise PeerFailure(f"status {reply.status}: {body[:200]!r}")
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return self._route.protocol.decode(headers, body)


def is_right(got: Array, expected: Array, tolerance: float) -> bool:
    """Equal within the tolerance; batches of other sizes add in another order."""
    return got.shape == expected.shape and bool(np.allclose(got, expected, atol=tolerance))


def check_answers(route: Route, work: Workload) -> None:
    """All rows of the workload, several at a time.

    Raises:
        PeerFailure: an answer is wrong or missing.
    """

    def ask(part: int) -> list[str]:
        wrong = []
        with Client(route) as client:
            for index in range(part, len(work.rows), _THREADS):
                try:
                    answer = client.ask(work, work.rows[index])
                    if not is_right(answer, work.answers[index], work.tolerance):
                        wrong.append(f"row {index} is wrong")
                except Exception as error:
                    wrong.append(f"row {index}: {type(error).__name__}: {error}")
        return wrong

    with ThreadPoolExecutor(_THREADS) as pool:
        wrong = [text for texts in pool.map(ask, range(_THREADS)) for text in texts]
    if wrong:
        text = f"{len(wrong)} of {len(work.rows)} answers are wrong or missing: {wrong[0][:200]}"
        raise PeerFailure(f"{route.name}: {text}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"


def new_place(peer: Peer, home: Path, scratch: Path, work: Workload, variant: str) -> Place:
    """A place on free ports."""
    ports = (_measure.free_port(), _measure.free_port())
    return Place(home, scratch, work, peer.variants_for(work)[variant], *ports)
