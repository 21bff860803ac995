"""Python identity models against the same model in ONNX, interleaved in one run.

Run: .venv/bin/python bench/python_models.py [--transport native] [--rounds 5] [--seconds 1]

One server has three models, each with an output that is its input, 64 FP32 a row: `native` (a
class with predict), `triton` (a TritonPythonModel), `onnx` (ONNX Runtime's Identity). Each round
loads one after the other with one-row requests: 64 in flight on one connection, then 1. Printed are
rates, their ratio to onnx's in the same round, and the CPU time of the server and of its workers a
request: the median of the rounds and the spread. The models' success counters must have grown by
just what was sent.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import _measure
import native_transport
import numpy as np
import psutil
import shared_memory
from tritonclient.grpc import service_pb2

WIDTH = 64
INFER = native_transport.INFER

NATIVE = f"""
class Model:
    inputs = {{"X": ("FP32", ({WIDTH},))}}
    outputs = {{"Y": ("FP32", ({WIDTH},))}}

    def predict(self, batch):
        return {{"Y": batch["X"]}}
"""

TRITON = f"""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({{"name": "X", "data_type": "TYPE_FP32", "dims": [{WIDTH}]}})
        config.add_output({{"name": "Y", "data_type": "TYPE_FP32", "dims": [{WIDTH}]}})
        config.set_max_batch_size(64)
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(r, "X").as_numpy())]
            )
            for r in requests
        ]
"""


def write_models(repository: Path) -> dict[str, str]:
    """The repository; kinds by model."""
    for name, source in (("native", NATIVE), ("triton", TRITON)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(source)
    shared_memory.write_identity(repository, WIDTH)
    return {"native": "native", "triton": "triton", "onnx": "identity"}


def body(model: str, folder: Path) -> Path:
    """A file with one request, framed."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="X", datatype="FP32", shape=[1, WIDTH])
    request.raw_input_contents.append(np.random.default_rng(7).random(WIDTH, np.float32).tobytes())
    path = folder / f"{model}.framed"
    path.write_bytes(_measure.grpc_frame(request.SerializeToString()))
    return path


def cpu_seconds(pid: int) -> float:
    """Of the server and its workers."""
    children = psutil.Process(pid).children(recursive=True)
    return sum(_measure.cpu_seconds(each) for each in (pid, *(child.pid for child in children)))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = _measure.default_transport()
    parser.add_argument("--transport", choices=("native", "grpcio"), default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, about")
    args = parser.parse_args()
    figures: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        repository = Path(folder) / "models"
        models = write_models(repository)
        flags = _measure.transport_flags(args.transport)
        with _measure.penstock(repository, *flags) as (process, address):
            server = native_transport.Server(process.pid, address)
            bodies = {name: body(model, Path(folder)) for name, model in models.items()}
            for round_ in range(args.rounds + 1):
                for inflight in (64, 1):
                    measure_round(server, bodies, inflight, args.seconds, figures)
                if round_ == 0:  # to warm up
                    figures.clear()
            for name, model in models.items():
                done = native_transport.successes(server, model)
                if done != server.sent[name]:
                    raise SystemExit(f"{name}: {done} answered of {server.sent[name]} sent")
    print(f"--transport {args.transport}, {args.rounds} rounds: median (least..greatest)")
    for name, values in figures.items():
        print(f"{name:<28} {spread(values)}")


def measure_round(
    server: native_transport.Server,
    bodies: dict[str, Path],
    inflight: int,
    seconds: float,
    figures: dict[str, list[float]],
) -> None:
    """One round over all models."""
    rates = {}
    for name, path in bodies.items():
        key = f"{name} x{inflight}"
        requests = max(64, int(server.rates.get(key, 2_000) * seconds))
        start_s = cpu_seconds(server.pid)
        rate = _measure.h2load(server.address, INFER, path, requests, 1, inflight)
        cpu_us = (cpu_seconds(server.pid) - start_s) / requests * 1e6
        server.sent[name] += requests
        server.rates[key] = rates[name] = rate
        figures[f"{key} req/s"].append(rate)
        figures[f"{key} CPU us a request"].append(cpu_us)
    for name in ("native", "triton"):
        figures[f"{name} x{inflight} to onnx"].append(rates[name] / rates["onnx"])


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest."""
    digits = 0 if median(values) >= 100 else 2
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


if __name__ == "__main__":
    main()
