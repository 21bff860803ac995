"""Ratios of LoadGen's scenarios, by runs that alternate: with spread over the rounds.

h2load: the native harness over gRPC, 64 in flight on one connection, to what `h2load -c 1 -m 64`
gets of the same server: a bare echo (a null target over gRPC), and Penstock with digits.
server: the highest rate of Poisson arrivals within 5 ms at p99, by probes of 5 s, to Offline's
rate: of a bare echo, which is what harness and machine can do, and of Penstock with digits.
engine: a model over gRPC to the same model by the engine in this process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import _measure
from mlperf import machine
from mlperf.run import calibrate, expecting, probe, run_long_enough
from mlperf.search import highest_rate
from mlperf.settings import Plan
from mlperf.targets import INFER, Counters, EngineTarget, GrpcTarget, Target
from mlperf.workloads import WORKLOADS, Array, Workload, digits

_STREAMS = 64
_PROBE_S = 1.0

Measure = Callable[[], float]


@dataclass(frozen=True)
class Pair:
    """Two ways to the same work; each gives a rate."""

    name: str
    first: Measure
    second: Measure


class EchoTarget(GrpcTarget):
    """A server that answers with the request, which stands for the right answer."""

    def answer(self, payload: bytes) -> Array:
        """The reference of the sample whose request came back; ValueError if none did."""
        sample = self._requests.index(payload)
        row: Array = self._workload.reference[sample : sample + 1]
        return row

    def counters(self) -> Counters:
        """It has none."""
        return Counters()


def parse(arguments: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="bench/ratios.py", description=__doc__)
    parser.add_argument("ratio", choices=("h2load", "server", "engine"))
    parser.add_argument("--model", choices=sorted(WORKLOADS), default="resnet50", help="of engine")
    parser.add_argument("--only", default="", help="pairs with this in their name: digits, echo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run, at least")
    parser.add_argument("--output", type=Path, default=_measure.ROOT / "build/ratios")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, prints, and keeps raw rates and LoadGen's logs in the output folder."""
    args = parse(sys.argv[1:])
    load_before = machine.load()
    output = args.output / args.ratio
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    pairs = {"h2load": h2load_pairs, "server": server_pairs, "engine": engine_pairs}[args.ratio]
    found: dict[str, list[tuple[float, float]]] = {}
    with pairs(args, output) as all_pairs:
        for pair in all_pairs:
            if args.only not in pair.name:
                continue
            found[pair.name] = rounds(pair, args.rounds)
            print(summary(pair.name, found[pair.name]), flush=True)
            about = machine.describe(load_before)
            content = {"machine": about, "seconds": args.seconds, "rates": found}
            (output / "ratios.json").write_text(json.dumps(content, indent=1) + "\n")
    if not found:
        raise SystemExit(f"--only {args.only}: no pair of {args.ratio} is called so")


def rounds(pair: Pair, count: int) -> list[tuple[float, float]]:
    """Rates of both, in turn; every other round the other way about."""
    rates = []
    for number in range(count):
        if number % 2 == 0:
            first = pair.first()
            second = pair.second()
        else:
            second = pair.second()
            first = pair.first()
        rates.append((first, second))
        print(f"  round {number + 1}: {first:,.1f} to {second:,.1f}/s", file=sys.stderr, flush=True)
    return rates


def summary(name: str, rates: list[tuple[float, float]]) -> str:
    """Ratio and rates: median (least..greatest)."""
    ratio = _measure.Spread(tuple(a / b for a, b in rates))
    firsts, seconds = (_measure.Spread(tuple(each)) for each in zip(*rates, strict=True))
    return f"{name}: {ratio}, of that {firsts} to {seconds} a second"


@contextmanager
def h2load_pairs(args: argparse.Namespace, output: Path) -> Iterator[list[Pair]]:
    """LoadGen to h2load, against the echo and against Penstock."""
    workload = digits()
    workload.window = _STREAMS
    with _measure.http2_echo() as (_, echo), served(workload) as address:
        echoed = EchoTarget(workload, echo)
        asked = GrpcTarget(workload, address)
        with closing(echoed), closing(asked):
            yield [
                _h2load_pair("bare echo", workload, echoed, echo, args.seconds, output / "echo"),
                _h2load_pair("digits", workload, asked, address, args.seconds, output / "digits"),
            ]


def _h2load_pair(  # noqa: PLR0913
    name: str, workload: Workload, target: Target, address: str, seconds: float, output: Path
) -> Pair:
    output.mkdir()
    body = output / "body"
    body.write_bytes(_measure.grpc_frame(workload.grpc_requests()[0]))

    def ask(requests: int) -> float:
        return _measure.h2load(address, INFER, body, requests, 1, _STREAMS)

    def h2load() -> float:
        return ask(int(ask(20_000) * seconds))

    loadgen = offline(workload, target, "grpc", seconds, output)
    return Pair(f"LoadGen over gRPC to h2load -c 1 -m {_STREAMS}, {name}", loadgen, h2load)


@contextmanager
def server_pairs(args: argparse.Namespace, output: Path) -> Iterator[list[Pair]]:
    """Poisson arrivals to bulk, of the echo and of Penstock."""
    workload = digits()
    with _measure.http2_echo() as (_, echo), served(workload) as address:
        echoed = EchoTarget(workload, echo)
        asked = GrpcTarget(workload, address)
        with closing(echoed), closing(asked):
            yield [
                _server_pair("bare echo", workload, echoed, args.seconds, output / "echo"),
                _server_pair("digits", workload, asked, args.seconds, output / "digits"),
            ]


def _server_pair(
    name: str, workload: Workload, target: Target, seconds: float, output: Path
) -> Pair:
    def highest() -> float:
        path = output / "server"
        bound_ms = workload.latency_ms
        plan = Plan(
            workload, "Server", "performance", "grpc", path, 5.0, bound_ms=bound_ms, sut="native"
        )
        found = probe(plan, calibrate(plan, target), target, _PROBE_S)
        return highest_rate(plan, target, found.samples_per_s / 4, lambda _: None).good

    bulk = offline(workload, target, "grpc", seconds, output / "offline")
    return Pair(f"Server within {workload.latency_ms:g} ms to Offline, {name}", highest, bulk)


@contextmanager
def engine_pairs(args: argparse.Namespace, output: Path) -> Iterator[list[Pair]]:
    """Over gRPC to in process."""
    workload = WORKLOADS[args.model]()
    with tempfile.TemporaryDirectory(prefix="penstock-ratios-") as folder:
        workload.write_repository(Path(folder))
        with served(workload) as address, closing(EngineTarget(workload, Path(folder))) as engine:
            with closing(GrpcTarget(workload, address)) as remote:
                over = offline(workload, remote, "grpc", args.seconds, output / "grpc")
                within = offline(workload, engine, "engine", args.seconds, output / "engine")
                name = f"{args.model}, Offline over gRPC to the engine in process"
                yield [Pair(name, over, within)]


@contextmanager
def served(workload: Workload) -> Iterator[str]:
    """A server with the workload's model; its gRPC address."""
    with tempfile.TemporaryDirectory(prefix="penstock-ratios-") as folder:
        workload.write_repository(Path(folder))
        with _measure.penstock(Path(folder)) as (_, address):
            yield address


def offline(workload: Workload, target: Target, name: str, seconds: float, output: Path) -> Measure:
    """Samples a second of a run, by the native system under test.

    Raises, when it is run:
        SystemExit: the run is not valid, or an answer is wrong.
    """

    def measure() -> float:
        plan = Plan(workload, "Offline", "performance", name, output, seconds, sut="native")
        found = calibrate(plan, target)
        found = probe(plan, found, target, _PROBE_S)
        result = run_long_enough(expecting(plan, found), target, lambda _: None)
        if result.verdict != "VALID":
            raise SystemExit(f"{name}: {result.verdict}: {'; '.join(result.reasons)}")
        return result.samples_per_s

    return measure


if __name__ == "__main__":
    main()
