"""How many responses a decoupled model gets to its clients, and how soon the first one is there.

Run: .venv/bin/python bench/decoupled.py [--transport native] [--streams 16] [--rounds 5]

The model is repeat_int32, the C++ fixture of the tests (`make fixture`), without delays: each
request is answered with so many responses of an INT32 and a UINT32, as fast as the client takes
them. `penstock-load` keeps one request under way on each stream, all on one connection, and counts.
The first response's latency is seen by a client in C's gRPC core: from sending a request for one
response on an idle stream to having it, and to the first of many.

At the end the server's own success counter must have grown by exactly the requests sent.
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import _measure
import grpc
import numpy as np
from tritonclient.grpc import service_pb2

import penstock_client

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
BACKENDS = Path(__file__).parents[1] / "build" / "release" / "testing" / "backends"
CONFIG = """
backend: "fixture"
default_model_filename: "model.txt"
max_batch_size: 0
model_transaction_policy { decoupled: true }
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = _measure.default_transport()
    parser.add_argument("--transport", choices=("native", "grpcio"), default=default)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--responses", type=int, default=1000, help="to each request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    args = parser.parse_args()
    if not list(BACKENDS.glob("*.so")):
        raise SystemExit("the fixture backend is missing: make fixture")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        write_model(folder / "models")
        flags = [*_measure.transport_flags(args.transport), "--backend-directory", str(BACKENDS)]
        with _measure.penstock(folder / "models", *flags) as (process, address):
            measure(process.pid, address, folder, args)


def write_model(repository: Path) -> None:
    """repeat_int32, as decoupled."""
    directory = repository / "repeat_int32"
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.txt").write_text("kind = repeat_int32\n")
    (directory / "config.pbtxt").write_text(CONFIG)


def request_bytes(responses: int) -> bytes:
    """A request for so many responses."""
    request = service_pb2.ModelInferRequest(model_name="repeat_int32")
    values = np.arange(responses, dtype=np.int32)
    for name, datatype, data in (
        ("IN", "INT32", values),
        ("DELAY", "UINT32", np.zeros(responses, np.uint32)),
        ("WAIT", "UINT32", np.zeros(1, np.uint32)),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[len(data)])
        request.raw_input_contents.append(data.tobytes())
    message: bytes = request.SerializeToString()
    return message


def measure(pid: int, address: str, folder: Path, args: argparse.Namespace) -> None:
    """The rounds, after one to warm up."""
    body = folder / "request"
    body.write_bytes(request_bytes(args.responses))
    rates, cpu_us, sent = [], [], 0
    for round_ in range(args.rounds + 1):
        start_s = _measure.cpu_seconds(pid)
        report = _measure.penstock_load(
            address,
            *("--request", str(body), "--streams", str(args.streams)),
            *("--concurrency", str(args.streams), "--responses", str(args.responses)),
            *("--duration", str(args.seconds)),
        )
        cpu_s = _measure.cpu_seconds(pid) - start_s
        sent += report["sent"]
        if round_ > 0:
            rates.append(report["rate"] * args.responses)
            cpu_us.append(cpu_s / (report["sent"] * args.responses) * 1e6)
    print(f"--transport {args.transport}, {args.rounds} rounds: median (least..greatest)")
    print(f"{f'responses/s on {args.streams} streams':42} {_measure.Spread(tuple(rates))}")
    print(f"{'us of server CPU per response':42} {_measure.Spread(tuple(cpu_us))}")
    for title, responses in (("only", 1), ("first of many", args.responses)):
        times_us = list(first_responses(address, responses, 300))
        sent += len(times_us)
        print(f"{f'{title} response, idle server: p50 us':42} {median(times_us):.0f}")
    with penstock_client.Client(address) as client:
        statistics = client.statistics("repeat_int32")[0]
    if (statistics.success.count, statistics.fail.count) != (sent, 0):
        raise SystemExit(f"{statistics.success.count} of {sent} requests succeeded")


def first_responses(address: str, responses: int, count: int) -> Iterator[float]:
    """How long the first response of each request took, one request at a time, in microseconds."""
    body = request_bytes(responses)
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(address) as channel:
        call = iter(channel.stream_stream(STREAM, None, None)(iter(requests.get, None)))
        for _ in range(count):
            start_s = time.perf_counter()
            requests.put(body)
            next(call)
            yield (time.perf_counter() - start_s) * 1e6
            for _ in range(responses - 1):
                next(call)
        requests.put(None)


if __name__ == "__main__":
    main()
