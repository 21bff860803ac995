"""A transport of Penstock against a bare HTTP/2 echo, interleaved in one run.

Run: .venv/bin/python bench/native_transport.py [--transport native] [--rounds 5] [--seconds 1]

Both servers stay up; each round measures every shape of load on one, then on the other, with the
same bytes. What is compared is a ratio of two neighbours in a round; printed are the median of the
rounds and the spread.

- digits by h2load: 1 connection x 64 requests in flight (rate, server CPU), 1 x 1 (median latency),
  4 x 16 and 64 x 1 (rates, against the server's own 1 x 64).
- digits by penstock-load: Poisson arrivals at half of Penstock's own 1 x 64 rate, 99th percentile,
  corrected for coordinated omission. Every answer is checked: status, message, id.
- 1 MB each way through an identity model by penstock-load: every answer compared to the byte.

At the end Penstock's own success counters must have grown by exactly the requests sent, and its
failure counters not at all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import _measure
import numpy as np
import shared_memory
import transport
from tritonclient.grpc import service_pb2

import penstock_client

INFER = transport.INFER
SHAPES = {"1x64": (1, 64), "1x1": (1, 1), "4x16": (4, 16), "64x1": (64, 1)}
FLOATS = (1 << 20) // 4


@dataclass
class Server:
    """One of the two, and what it was found to do.

    Attributes:
        figures: by name, one value a round.
        sent: by model, requests in all rounds.
        rates: by shape, what the last run reached; the next one is as long as that asks for.
    """

    pid: int
    address: str
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    rates: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    transports = ("native", "grpcio")
    default = _measure.default_transport()
    parser.add_argument("--transport", choices=transports, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, about")
    args = parser.parse_args()
    with (
        _measure.digits_repository() as repository,
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        _measure.http2_echo() as (bare, echo_address),
    ):
        shared_memory.write_identity(repository, FLOATS)
        flags = _measure.transport_flags(args.transport)
        with _measure.penstock(repository, *flags) as (ours, address):
            servers = {
                "echo": Server(bare.pid, echo_address),
                "penstock": Server(ours.pid, address),
            }
            bench = Bench(servers, Path(folder), args.seconds)
            bench.run(args.rounds)
            bench.check_counters()
    print(f"--transport {args.transport}, {args.rounds} rounds: median (least..greatest)")
    print_results(servers)


class Bench:
    """The rounds, and the bodies that they send.

    Lifecycle: run, then check_counters.
    """

    def __init__(self, servers: dict[str, Server], folder: Path, seconds: float) -> None:
        self._servers = servers
        self._folder = folder
        self._seconds = seconds
        digits = transport.request_bytes()
        self._framed = self._write("digits.framed", _measure.grpc_frame(digits))
        self._digits = self._write("digits", digits)
        identity = identity_bytes()
        self._identity = self._write("identity", identity)
        self._before = {name: successes(self._ours, name) for name in ("digits", "identity")}
        self._answer = self._write("identity.answer", first_answer(self._ours, identity))
        self._ours.sent["identity"] += 1

    @property
    def _ours(self) -> Server:
        return self._servers["penstock"]

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path

    def run(self, rounds: int) -> None:
        """So many rounds after one to warm up, each with every measurement on every server."""
        for round_ in range(rounds + 1):
            for shape in SHAPES:
                self._each(self._closed, shape)
            self._each(self._open, self._ours.rates["1x64"] / 2)
            self._each(self._megabyte)
            if round_ == 0:
                for server in self._servers.values():
                    server.figures.clear()

    def _each(self, measure: Callable[..., None], *arguments: object) -> None:
        for server in self._servers.values():
            measure(server, *arguments)

    def _closed(self, server: Server, shape: str) -> None:
        clients, streams = SHAPES[shape]
        requests = max(64, int(server.rates.get(shape, 2_000) * self._seconds))
        log = self._folder / "log" if shape == "1x1" else None
        if log is not None:
            log.unlink(missing_ok=True)  # h2load appends
        start_s = _measure.cpu_seconds(server.pid)
        rate = _measure.h2load(server.address, INFER, self._framed, requests, clients, streams, log)
        cpu_s = _measure.cpu_seconds(server.pid) - start_s
        server.sent["digits"] += requests
        server.rates[shape] = rate
        server.figures[f"{shape} rate"].append(rate)
        server.figures[f"{shape} of 1x64"].append(rate / server.rates["1x64"])
        server.figures[f"{shape} cpu_us"].append(cpu_s / requests * 1e6)
        if log is not None:
            times = [float(line.split("\t")[2]) for line in log.read_text().splitlines()]
            server.figures[f"{shape} p50_us"].append(median(times))

    def _open(self, server: Server, rate: float) -> None:
        report = _measure.penstock_load(
            server.address,
            *("--path", INFER, "--request", str(self._digits), "--ids", "--connections", "4"),
            *("--rate", f"{rate:.3f}", "--warmup", "0.2", "--duration", str(2 * self._seconds)),
        )
        server.sent["digits"] += report["sent"]
        for name in ("p50", "p99"):
            server.figures[f"open {name}_us"].append(report["latency_us"][name])
        server.figures["open rate"].append(report["rate"])

    def _megabyte(self, server: Server) -> None:
        requests = max(16, int(server.rates.get("1MB", 50) * self._seconds))
        expected = ["--expect", str(self._answer)] if server is self._ours else ["--expect-request"]
        start_s = _measure.cpu_seconds(server.pid)
        report = _measure.penstock_load(
            server.address,
            *("--path", INFER, "--request", str(self._identity), *expected),
            *("--concurrency", "4", "--requests", str(requests)),
        )
        cpu_s = _measure.cpu_seconds(server.pid) - start_s
        server.sent["identity"] += report["sent"]
        server.rates["1MB"] = report["rate"]
        server.figures["1MB rate"].append(report["rate"])
        server.figures["1MB cpu_us"].append(cpu_s / requests * 1e6)

    def check_counters(self) -> None:
        """Penstock must have answered what was sent, no more and no less, and failed nothing."""
        for model, before in self._before.items():
            done = successes(self._ours, model) - before
            if done != self._ours.sent[model]:
                raise SystemExit(f"{model}: {done} answered of {self._ours.sent[model]} sent")


def identity_bytes() -> bytes:
    """A request of 1 MB for the identity model."""
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="X", datatype="FP32", shape=[1, FLOATS])
    values = np.random.default_rng(7).random(FLOATS, np.float32)
    request.raw_input_contents.append(values.tobytes())
    message: bytes = request.SerializeToString()
    return message


def first_answer(server: Server, request: bytes) -> bytes:
    """The answer to a request, to the byte; its tensor must be the one that was sent."""
    import grpc

    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        answer: bytes = channel.unary_unary(INFER, None, None)(request)
    sent = service_pb2.ModelInferRequest.FromString(request).raw_input_contents
    if service_pb2.ModelInferResponse.FromString(answer).raw_output_contents != sent:
        raise SystemExit("the identity model answers with another tensor")
    return answer


def successes(server: Server, model: str) -> int:
    """Requests that a model has answered, by the server's own statistics; none may have failed."""
    with penstock_client.Client(server.address) as client:
        statistics = client.statistics(model)[0]
        if statistics.fail.count != 0:
            raise SystemExit(f"{model}: {statistics.fail.count} requests failed")
        return statistics.success.count


def print_results(servers: dict[str, Server]) -> None:
    """Figures of both and the ratios, with the targets of the native transport."""
    ours, echo = servers["penstock"].figures, servers["echo"].figures

    def row(title: str, name: str, target: str) -> None:
        ratios = [a / b for a, b in zip(ours[name], echo[name], strict=True)]
        print(f"{title:42} {spread(ratios)}  {target}")
        print(f"{'':4}penstock {spread(ours[name])}, echo {spread(echo[name])}")

    row("1x64 req/s, to the echo", "1x64 rate", ">= 0.6")
    print(f"{'1x64 us of server CPU per request':42} {spread(ours['1x64 cpu_us'])}  <= 12")
    row("1x1 p50 us, to the echo", "1x1 p50_us", "<= 2.5")
    for shape in ("4x16", "64x1"):
        title = f"{shape} req/s, to its own 1x64"
        print(f"{title:42} {spread(ours[f'{shape} of 1x64'])}  >= 0.9")
        row(f"{shape} req/s, to the echo", f"{shape} rate", "")
    row("open loop at half of peak: p99 us, to the echo", "open p99_us", "<= 5")
    row("open loop at half of peak: p50 us, to the echo", "open p50_us", "")
    print(f"{'    at':42} {spread(ours['open rate'])} req/s")
    row("1 MB each way, 4 in flight: req/s, to the echo", "1MB rate", ">= 0.5")
    print(f"{'1 MB us of server CPU per request':42} {spread(ours['1MB cpu_us'])}")


def spread(values: list[float]) -> str:
    return str(_measure.Spread(tuple(values)))


if __name__ == "__main__":
    main()
