"""Peers that do not start, answer wrongly or leave children behind."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from peers import load, serving
from peers.load import Point
from peers.peer import Launch, Peer, Place, Route
from peers.protocols import RawHttp
from peers.workload import Workload

pytestmark = pytest.mark.any_transport

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
WORK = Workload("toy", Path("toy.onnx"), "X", "Y", ROWS, ROWS, 1, 1, (1,), (), 1e-4)
ECHO = """\
import subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""


DAEMON = """\
import os, signal
if os.fork() == 0:
    os.setsid()  # as Ray's workers do
    if os.fork() == 0:
        open("daemon", "w").write(str(os.getpid()))
        signal.pause()
    os._exit(0)
os.wait()
"""
CRASH = """\
import sys, time
while not __import__("os").path.exists("daemon"): time.sleep(0.01)
print("out of memory", file=sys.stderr)
sys.exit(3)
"""


class Script(Peer):
    """Python code."""

    name = "script"
    notes = "none"

    def __init__(self, code: str) -> None:
        self._code = code

    def launch(self, place: Place) -> Launch:
        return Launch([sys.executable, "-c", self._code, str(place.http_port)])

    def routes(self, place: Place) -> list[Route]:
        return [Route("HTTP", place.http_port, RawHttp("/"))]


class Answers(BaseHTTPRequestHandler):
    """What the server's attribute says, to each request."""

    protocol_version = "HTTP/1.1"
    status, body = 200, b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """With room for the connections of an open loop."""

    request_queue_size = 128


@pytest.fixture
def route() -> Iterator[Route]:
    with Server(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Route("HTTP", server.server_address[1], RawHttp("/"))
        server.shutdown()


def start(code: str, folder: Path) -> Iterator[serving.Server]:
    peer = Script(code)
    scratch = folder / "scratch"
    scratch.mkdir()
    place = serving.new_place(peer, folder, scratch, WORK, "")
    with serving.running(peer, place, folder / "log") as server:
        yield server


def test_server_that_ends_is_told_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(serving.PeerFailure, match="ended with 3: no such model"):
        next(start("import sys; print('no such model', file=sys.stderr); sys.exit(3)", tmp_path))


def test_server_is_weighed_and_ended_with_its_children(tmp_path: Path) -> None:
    starting = start(ECHO, tmp_path)
    server = next(starting)
    each = server.tree()
    assert len(each) == 2 and server.ready_s > 0
    assert server.memory_mb() > 1 and server.cpu_s() > 0
    starting.close()  # type: ignore[attr-defined]
    assert not [one for one in each if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_workers_of_a_server_that_crashed_are_ended_too(tmp_path: Path) -> None:
    with pytest.raises(serving.PeerFailure, match="ended with 3: out of memory"):
        next(start(DAEMON + CRASH, tmp_path))
    daemon = int((tmp_path / "scratch/daemon").read_text())
    assert not psutil.pid_exists(daemon)


def test_wrong_answers_are_counted(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "body", ROWS[0].tobytes())
    with pytest.raises(serving.PeerFailure, match="HTTP: 1 of 2 answers are wrong or missing"):
        serving.check_answers(route, WORK)


@pytest.mark.slow  # `make slow` builds the generator
@pytest.mark.parametrize(("status", "failed"), [(200, 0), (503, 20)])
def test_http_load_counts_answers_that_are_not_200(
    route: Route, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, failed: int
) -> None:
    monkeypatch.setattr(Answers, "status", status)
    monkeypatch.setattr(Answers, "body", b"0123")
    request = route.protocol.encode(WORK, ROWS[0])
    for point in (Point(4), Point(0, 500)):
        report = load.load(route, request, point, 20, tmp_path)
        assert (report["sent"], report["failed"]) == (20, failed)
        assert (f"status {status}" in load.first_failure(report)) == bool(failed)


@pytest.mark.slow  # `make slow` builds the generator
def test_http_load_says_why_it_cannot_begin(tmp_path: Path) -> None:
    nobody = Route("HTTP", 1, RawHttp("/"))
    request = nobody.protocol.encode(WORK, ROWS[0])
    with pytest.raises(RuntimeError, match="took no connection"):
        load.load(nobody, request, Point(1), 1, tmp_path)
