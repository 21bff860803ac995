"""Penstock against Triton's own server and Python backend, interleaved in one run.

Run: .venv/bin/python bench/triton_identity.py [--rounds 5] [--seconds 1.5]

Triton is the `tritonserver` of the wheel nvidia-pytriton (bench/peers/triton.py), installed into
build/peers on the first run; it serves an identity model of 64 FP32 through its Python backend, the
only one in the wheel. Penstock serves an ONNX identity, and the very same `model.py` where it has a
Python backend. All servers stay up; each round loads one after the other with h2load, and the ratio
is taken within the round. CPU time is that of a server with all its children.

Before and after, answers to 200 different rows from 16 threads are compared with what was sent;
each server's own counters must have grown by exactly the requests sent, and its failures not at
all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import _measure
import numpy as np
import psutil
import shared_memory
import tritonclient.grpc as triton
from peers import serving
from peers import triton as triton_peer
from tritonclient.grpc import service_pb2

INFER = "/inference.GRPCInferenceService/ModelInfer"
FLOATS = 64
SHAPES = {"1x64": (1, 64), "4x16": (4, 16), "64x1": (64, 1), "1x1": (1, 1)}

MODEL = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]))
        return responses
"""
CONFIG = f"""\
backend: "python"
max_batch_size: 64
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ {FLOATS} ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {FLOATS} ] }} ]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


@dataclass
class Server:
    """A server, one model of it, and what it was found to do.

    Attributes:
        rates: by shape, what the last run reached; the next one is as long as that asks for.
        figures: by name, one value a round.
    """

    name: str
    pid: int
    address: str
    model: str
    rates: dict[str, float] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def cpu_seconds(self) -> float:
        """Of the process and of those that it has started."""
        process = psutil.Process(self.pid)
        each = [process, *process.children(recursive=True)]
        return sum(_measure.cpu_seconds(one.pid) for one in each)

    def successes(self) -> int:
        """Requests answered so far; none may have failed."""
        with triton.InferenceServerClient(self.address) as client:
            stats = client.get_inference_statistics(self.model).model_stats[0].inference_stats
        if stats.fail.count:
            raise SystemExit(f"{self.name}: {stats.fail.count} requests failed")
        return int(stats.success.count)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement, about")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, ExitStack() as running:
        servers = start(Path(folder), running)
        for each in servers:
            check_answers(each)
        before = [each.successes() for each in servers]
        sent = measure(servers, Path(folder), args.rounds, args.seconds)
        for each, count in zip(servers, before, strict=True):
            if each.successes() - count != sent[each.name]:
                raise SystemExit(f"{each.name}: sent {sent[each.name]}, which it did not count")
            check_answers(each)
    show(servers, args.rounds)


def start(folder: Path, running: ExitStack) -> list[Server]:
    """Triton and Penstock, up and ready."""
    repository = folder / "python"
    write_python_model(repository)
    process, address = running.enter_context(tritonserver(repository, folder))
    servers = [Server("triton, python", process.pid, address, "identity_py")]
    onnx = folder / "onnx"
    shared_memory.write_identity(onnx, FLOATS)
    config = "max_batch_size: 64\ndynamic_batching { }\n"
    (onnx / "identity" / "config.pbtxt").write_text(config)
    process, address = running.enter_context(_measure.penstock(onnx))
    servers.append(Server("penstock, onnx", process.pid, address, "identity"))
    if has_python_backend():
        process, address = running.enter_context(_measure.penstock(repository))
        servers.append(Server("penstock, python", process.pid, address, "identity_py"))
    return servers


def has_python_backend() -> bool:
    return (_measure.ROOT / "server/penstock/backends/libpenstock_python.so").exists()


def write_python_model(repository: Path) -> None:
    version = repository / "identity_py" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL)
    (version.parent / "config.pbtxt").write_text(CONFIG)


@contextmanager
def tritonserver(
    repository: Path, folder: Path, *, http: bool = False
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Triton on a free port; yields the process and its address, of gRPC or of HTTP."""
    home = serving.install(triton_peer.PEER)
    site = next(home.glob("lib/python*/site-packages"))
    package = site / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(package / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for each in (package / "python_backend_stubs" / version).iterdir():
        shutil.copy(each, backend)
    libraries = [str(site / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(site),
    }
    command = [str(package / "bin" / "tritonserver"), f"--model-repository={repository}"]
    used, unused = ("http", "grpc") if http else ("grpc", "http")
    command += [f"--backend-directory={backend.parent}", f"--{used}-address=127.0.0.1"]
    command += [f"--{used}-port={_measure.free_port()}", f"--allow-{unused}=false"]
    command += ["--allow-metrics=false", "--log-verbose=0"]
    ready = rf"Started {used.upper()}\w*Service at ([\d.:]+)"
    with _measure.server(command, ready, environment) as (process, found):
        yield process, found[1]


def request(model: str, row: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    """One row."""
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="X", datatype="FP32", shape=[1, FLOATS])
    message.raw_input_contents.append(row.tobytes())
    data: bytes = message.SerializeToString()
    return data


def check_answers(server: Server) -> None:
    """Different rows at a time must each come back as they were sent."""
    rows = np.random.default_rng(5).random((200, 1, FLOATS), np.float32)
    with triton.InferenceServerClient(server.address) as client:

        def is_right(row: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
            tensor = triton.InferInput("X", [1, FLOATS], "FP32")
            tensor.set_data_from_numpy(row)
            answer = client.infer(server.model, [tensor]).as_numpy("Y")
            return bool(np.array_equal(answer, row))

        with ThreadPoolExecutor(16) as pool:
            wrong = list(pool.map(is_right, rows)).count(False)
    if wrong:
        raise SystemExit(f"{server.name}: {wrong} of {len(rows)} answers are wrong")


def measure(servers: list[Server], folder: Path, rounds: int, seconds: float) -> dict[str, int]:
    """So many rounds after one to warm up; returns what was sent, by server."""
    sent: dict[str, int] = defaultdict(int)
    row = np.random.default_rng(3).random((1, FLOATS), np.float32)
    for each in servers:
        body = folder / f"{each.model}.framed"
        body.write_bytes(_measure.grpc_frame(request(each.model, row)))
    for round_ in range(rounds + 1):
        for shape, (clients, streams) in SHAPES.items():
            for each in servers:
                count = max(64, int(each.rates.get(shape, 1_000) * seconds))
                body = folder / f"{each.model}.framed"
                begin_s = each.cpu_seconds()
                rate = _measure.h2load(each.address, INFER, body, count, clients, streams)
                cpu_us = (each.cpu_seconds() - begin_s) / count * 1e6
                sent[each.name] += count
                each.rates[shape] = rate
                if round_ > 0:
                    each.figures[f"{shape} rate"].append(rate)
                    each.figures[f"{shape} cpu_us"].append(cpu_us)
    return sent


def show(servers: list[Server], rounds: int) -> None:
    """Figures of all, and ratios to Triton."""
    print(f"{rounds} rounds: median (least..greatest)")
    peer = servers[0]
    for shape in SHAPES:
        for each in servers:
            rates, cpu = each.figures[f"{shape} rate"], each.figures[f"{shape} cpu_us"]
            pairs = zip(rates, peer.figures[f"{shape} rate"], strict=True)
            ratio = _measure.Spread(tuple(ours / theirs for ours, theirs in pairs))
            line = f"{shape:5} {each.name:17} {_measure.Spread(tuple(rates))} req/s, "
            line += f"{_measure.Spread(tuple(cpu))} us of CPU a request"
            print(line if each is peer else f"{line}, {ratio} x triton")


if __name__ == "__main__":
    main()
