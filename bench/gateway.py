"""HTTP: Penstock embedded and behind its gateway, beside Triton, mosec and MLServer, interleaved.

Run: .venv/bin/python bench/gateway.py [--rounds 3] [--seconds 1.5] [--only NAME ...]

One-row requests of 64 FP32 on 64 connections by h2load, one in flight on each: as the binary tensor
data of the protocol, and as JSON. Penstock, mosec and MLServer run the demo's digits classifier;
Triton an identity of as many values in its Python backend, the only one in its wheel
(bench/triton_identity.py). Peers are installed into build/peers on the first run; mosec has a
protocol of its own (the values, and nothing else), MLServer no binary data. Every kind of answer is
looked at before and after, and every request must be answered with 200.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import _measure
import numpy as np
import psutil
import triton_identity as triton
from peers import mlserver as mlserver_peer
from peers import mosec as mosec_peer
from peers.serving import install

HERE = Path(__file__).resolve().parent / "peers/digits"
ROW = np.random.default_rng(3).random((1, 64), np.float32) * 16
CONNECTIONS = 64


@dataclass
class Body:
    """A request as it is sent, and where to."""

    path: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A server that is up, its requests by kind, and what was measured of it."""

    name: str
    address: str
    pids: list[int]
    bodies: dict[str, Body]
    rates: dict[str, float] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def cpu_seconds(self) -> float:
        """Of its processes and of those that they have started."""
        parents = [psutil.Process(pid) for pid in self.pids]
        each = [one for parent in parents for one in (parent, *parent.children(recursive=True))]
        return sum(_measure.cpu_seconds(one.pid) for one in each)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement, about")
    parser.add_argument("--only", nargs="*", choices=sorted(STARTS), default=sorted(STARTS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch, ExitStack() as running:
        folder = Path(scratch)
        repository = running.enter_context(_measure.digits_repository())
        servers = [
            running.enter_context(start(repository, folder))
            for name, start in STARTS.items()
            if name in args.only
        ]
        for each in servers:
            check(each)
        measure(servers, folder, args.rounds, args.seconds)
        for each in servers:
            check(each)
    show(servers, args.rounds)


def open_inference(model: str, *, binary: bool = True) -> dict[str, Body]:
    """The protocol's two requests for one row."""
    path = f"/v2/models/{model}/infer"
    tensor = {"name": "X", "shape": [1, 64], "datatype": "FP32"}
    plain = {"inputs": [{**tensor, "data": ROW.ravel().tolist()}]}
    bodies = {"json": Body(path, json.dumps(plain).encode(), {"Content-Type": "application/json"})}
    if binary:
        head = json.dumps(
            {
                "inputs": [{**tensor, "parameters": {"binary_data_size": ROW.nbytes}}],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        bodies["binary"] = Body(path, head + ROW.tobytes(), headers)
    return bodies


@contextmanager
def embedded(repository: Path, _folder: Path) -> Iterator[Server]:
    """`penstock serve`."""
    with serving(repository) as (process, _grpc, http):
        yield Server("penstock", http, [process.pid], open_inference("digits"))


@contextmanager
def behind_gateway(repository: Path, _folder: Path) -> Iterator[Server]:
    """`penstock gateway` in front of `penstock serve`."""
    with serving(repository) as (process, grpc, _http):
        command = [sys.executable, "-m", "penstock", "gateway", "--upstream", grpc]
        command += ["--http-port=0", "--shutdown-grace-secs=0"]
        with _measure.server(command, r"gateway is ready: HTTP (\S+)") as (gateway, found):
            pids = [process.pid, gateway.pid]
            yield Server("penstock gateway", found[1], pids, open_inference("digits"))


@contextmanager
def serving(repository: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    command = [sys.executable, "-m", "penstock", "serve", str(repository), "--grpc-port=0"]
    command += ["--http-port=0", "--metrics-port=0", "--shutdown-grace-secs=0"]
    ready = r"is ready: gRPC (\S+?), HTTP (\S+?),"
    with _measure.server(command, ready) as (process, found):
        yield process, found[1], found[2]


@contextmanager
def triton_http(_repository: Path, folder: Path) -> Iterator[Server]:
    """Triton's HTTP endpoint."""
    triton.write_python_model(folder / "python")
    with triton.tritonserver(folder / "python", folder, http=True) as (process, address):
        yield Server("triton, python", address, [process.pid], open_inference("identity_py"))


@contextmanager
def mosec(repository: Path, _folder: Path) -> Iterator[Server]:
    """Mosec, one worker."""
    home = install(mosec_peer.PEER)
    port = _measure.free_port()
    command = [str(home / "bin/python"), str(HERE / "mosec_digits.py"), "--address=127.0.0.1"]
    command += [f"--port={port}", "--timeout=60000"]
    environment = {**os.environ, "DIGITS_ONNX": str(repository / "digits/1/model.onnx")}
    bodies = {
        "binary": Body("/inference", ROW.tobytes()),
        "json": Body("/inference", json.dumps(ROW.ravel().tolist()).encode()),
    }
    with logged(command, f"127.0.0.1:{port}", environment) as process:
        yield Server("mosec", f"127.0.0.1:{port}", [process.pid], bodies)


@contextmanager
def mlserver(repository: Path, folder: Path) -> Iterator[Server]:
    """MLServer in one process."""
    home = install(mlserver_peer.PEER)
    port, place = _measure.free_port(), folder / "mlserver"
    place.mkdir()
    shutil.copy(HERE / "mlserver_digits.py", place)
    settings: dict[str, object] = {"http_port": port, "grpc_port": _measure.free_port()}
    settings |= {"parallel_workers": 0, "metrics_port": _measure.free_port()}
    settings |= {"host": "127.0.0.1", "debug": False}
    (place / "settings.json").write_text(json.dumps(settings))
    model = {"name": "digits", "implementation": "mlserver_digits.Digits"}
    (place / "model-settings.json").write_text(json.dumps(model))
    environment = {**os.environ, "DIGITS_ONNX": str(repository / "digits/1/model.onnx")}
    command = [str(home / "bin/mlserver"), "start", str(place)]
    with logged(command, f"127.0.0.1:{port}", environment) as process:
        bodies = open_inference("digits", binary=False)
        yield Server("mlserver", f"127.0.0.1:{port}", [process.pid], bodies)


STARTS = {
    "penstock": embedded,
    "gateway": behind_gateway,
    "triton": triton_http,
    "mosec": mosec,
    "mlserver": mlserver,
}


@contextmanager
def logged(
    command: list[str], address: str, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that does not say when it is ready: it is asked."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(address):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended before it was ready")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def check(server: Server) -> None:
    """Each kind of request is answered with values."""
    for kind, body in server.bodies.items():
        url = f"http://{server.address}{body.path}"
        request = urllib.request.Request(url, body.data, body.headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            data = reply.read()
            if reply.status != 200 or len(data) < 40:
                raise SystemExit(f"{server.name}, {kind}: {reply.status} {data[:200]!r}")


def measure(servers: list[Server], folder: Path, rounds: int, seconds: float) -> None:
    """So many rounds after one to warm up."""
    for round_ in range(rounds + 1):
        for kind in ("binary", "json"):
            for each in servers:
                if kind not in each.bodies:
                    continue
                count = max(CONNECTIONS, int(each.rates.get(kind, 1_000) * seconds))
                begin_s = each.cpu_seconds()
                rate = h2load(each, kind, folder / "body", count)
                cpu_us = (each.cpu_seconds() - begin_s) / count * 1e6
                each.rates[kind] = rate
                if round_ > 0:
                    each.figures[f"{kind} rate"].append(rate)
                    each.figures[f"{kind} cpu_us"].append(cpu_us)


def h2load(server: Server, kind: str, file: Path, requests: int) -> float:
    """Requests per second over HTTP/1.1; each must be answered with 200."""
    body = server.bodies[kind]
    file.write_bytes(body.data)
    command = ["h2load", "--h1", "-n", str(requests), "-c", str(CONNECTIONS), "-d", str(file)]
    for name, value in body.headers.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://{server.address}{body.path}")
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", output)
    good = re.search(r"status codes: (\d+) 2xx", output)
    if rate is None or good is None or int(good[1]) != requests:
        raise SystemExit(f"{server.name}, {kind}: not every request was answered:\n{output}")
    return float(rate[1])


def show(servers: list[Server], rounds: int) -> None:
    """Figures of all, and ratios to each peer."""
    print(f"{rounds} rounds: median (least..greatest)")
    peers = [each for each in servers if not each.name.startswith("penstock")]
    for kind in ("binary", "json"):
        for each in servers:
            if kind not in each.bodies:
                continue
            rates, cpu = each.figures[f"{kind} rate"], each.figures[f"{kind} cpu_us"]
            line = f"{kind:6} {each.name:16} {_measure.Spread(tuple(rates))} req/s, "
            line += f"{_measure.Spread(tuple(cpu))} us of CPU a request"
            for peer in peers if each not in peers else []:
                if theirs := peer.figures[f"{kind} rate"]:
                    ratios = tuple(a / b for a, b in zip(rates, theirs, strict=True))
                    line += f", {_measure.Spread(ratios)} x {peer.name}"
            print(line)


if __name__ == "__main__":
    main()
