"""Command line of the harness: one scenario, one target, a report.

The exit status is 0 for a run that is VALID, 1 for one that is not, 2 where flags or target will
not do, 130 where it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import _measure
from mlperf import accounting, machine, report
from mlperf.accuracy import accuracy
from mlperf.folder import clear
from mlperf.http_target import HttpTarget
from mlperf.native_sut import load_module
from mlperf.overhead import overhead_us
from mlperf.placement import kept_off, parse_cpus, shown
from mlperf.run import Aborted, Result, calibrate, expecting, probe, run_long_enough
from mlperf.search import search
from mlperf.settings import MLPERF_SECONDS, SCENARIOS, Plan
from mlperf.targets import EngineTarget, GrpcTarget, NullTarget, Target
from mlperf.workloads import WORKLOADS, Workload

_QUICK_SECONDS = 2.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.mlperf", description=__doc__)
    parser.add_argument("--model", choices=sorted(WORKLOADS), default="digits")
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    targets = ("engine", "grpc", "http", "null")
    parser.add_argument("--target", choices=targets, default="grpc")
    suts = ("auto", "native", "python")
    parser.add_argument("--sut", choices=suts, default="auto", help="native wants make loadgen")
    parser.add_argument("--mode", choices=("performance", "accuracy"), default="performance")
    parser.add_argument("--valid", action="store_true", help="MLPerf's minimum counts and times")
    parser.add_argument("--duration", type=float, help="s; shorter than MLPerf's is said so")
    parser.add_argument("--least", type=int, help="queries (Offline: samples) with --valid")
    parser.add_argument("--output", type=Path, default=Path("build/mlperf"))
    parser.add_argument("--rate", type=float, default=0.0, help="of Server; without it: a search")
    parser.add_argument("--latency-ms", type=float, help="Server's bound at p99")
    parser.add_argument("--address", help="gRPC of a server that runs and has the model")
    parser.add_argument("--http-address", help="of its gateway")
    parser.add_argument("--connections", type=int, help="1 for gRPC, 32 for HTTP unless told")
    parser.add_argument("--server-cpus", default="", help="the harness runs on the others: 0-2,5")
    parser.add_argument("--price-per-hour", type=float, help="of this machine")
    parser.add_argument("--plan-rate", type=float, help="requests/s to plan the capacity for")
    args = parser.parse_args(arguments)
    if args.target == "http" and args.sut == "native":
        parser.error("--target http has no native system under test")
    if args.target == "http" and bool(args.address) != bool(args.http_address):
        parser.error("--target http wants both --address and --http-address, or neither")
    args.cpus = _cpus(parser, args)
    if args.least is not None and not args.valid:
        parser.error("--least is of a --valid run: a QUICK one has its own")
    for name in ("duration", "least", "latency_ms", "connections", "plan_rate"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    return args


def _cpus(parser: argparse.ArgumentParser, args: argparse.Namespace) -> frozenset[int]:
    """Those of the server that is started; none: it has all, as the harness."""
    if not args.server_cpus:
        return frozenset()
    if args.target not in ("grpc", "http") or args.address:
        parser.error("--server-cpus is of a server that the harness starts")
    try:
        return parse_cpus(args.server_cpus)
    except ValueError as error:
        parser.error(f"--server-cpus: {error}")


def make_plan(args: argparse.Namespace, workload: Workload) -> Plan:
    """The run that the flags ask for."""
    usual = MLPERF_SECONDS if args.valid else _QUICK_SECONDS
    return Plan(
        workload=workload,
        scenario=args.scenario,
        mode=args.mode,
        target=args.target,
        output=args.output,
        duration_s=args.duration or usual,
        is_valid=args.valid,
        rate=args.rate,
        least=args.least or 0,
        bound_ms=args.latency_ms or workload.latency_ms,
        sut=choose_sut(args),
    )


def choose_sut(args: argparse.Namespace) -> str:
    """The native system under test where there is one, unless the flags say otherwise."""
    if args.sut != "auto":
        chosen: str = args.sut
        return chosen
    return "native" if args.target != "http" and load_module() is not None else "python"


@contextmanager
def open_target(args: argparse.Namespace, workload: Workload) -> Iterator[Target]:
    """The target, with a server of its own unless one is named; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="penstock-mlperf-") as folder:
        root = Path(folder)
        target: Target
        if args.target == "null":
            yield NullTarget(workload)
            return
        if args.target == "engine":
            workload.write_repository(root)
            with closing(EngineTarget(workload, root)) as target:
                yield target
            return
        if args.address:
            yield from _remote(args, workload, args.address, args.http_address)
            return
        workload.write_repository(root)
        ready = r"is ready: gRPC (\S+?), HTTP (\S+?),"
        with kept_off(args.cpus) as command:
            command += [sys.executable, "-m", "penstock", "serve", str(root), "--grpc-port=0"]
            command += ["--http-port=0", "--metrics-port=0", "--shutdown-grace-secs=0"]
            with _measure.server(command, ready) as (_, found):
                yield from _remote(args, workload, found[1], found[2])


def _remote(
    args: argparse.Namespace, workload: Workload, grpc: str, http: str | None
) -> Iterator[Target]:
    target: Target
    if args.target == "http":
        assert http is not None
        target = HttpTarget(workload, http, grpc, args.connections or 32)
    else:
        target = GrpcTarget(workload, grpc, args.connections or 1)
    with closing(target):
        yield target


def main(adapt: Callable[[Workload], Workload] = lambda workload: workload) -> None:
    """Runs it, writes the report, exits.

    Args:
        adapt: what becomes of the workload before.
    """
    args = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args.load_before = machine.load()
    args.notes = clear(args.output)
    if args.cpus:
        others = os.sched_getaffinity(0) - args.cpus
        text = "the server runs on processors {}, the harness on {}"
        args.notes.append(text.format(shown(args.cpus), shown(others)))
    workload = adapt(WORKLOADS[args.model]())
    plan = make_plan(args, workload)
    say = _speaker(plan)
    result = Result(plan)
    for note in args.notes:
        say(note)
    try:
        with open_target(args, workload) as target:
            try:
                result = measure(plan, target, say)
            except Aborted as error:
                result.reasons.append(str(error))
                _give_up(result, args, 1)
            except KeyboardInterrupt:
                result.reasons.append("interrupted: the logs are partial")
                _give_up(result, args, 130)
    except Exception as error:  # the target's own, of many kinds: a server, sockets, the core
        print(f"INVALID: the target {plan.target} is down: {error}", file=sys.stderr)
        sys.exit(2)
    finish(result, args)
    sys.exit(0 if result.verdict == "VALID" else 1)


def _speaker(plan: Plan) -> Callable[[str], None]:
    label = f" [{plan.label.split(' ')[0]}]" if plan.label else ""

    def say(text: str) -> None:
        print(f"{plan.scenario}{label}: {text}", file=sys.stderr, flush=True)

    return say


def measure(plan: Plan, target: Target, say: Callable[[str], None]) -> Result:
    """The run, or in Server without a rate the search for it."""
    if plan.scenario == "Server" and plan.rate > plan.most_rate():
        most = plan.most_rate()
        raise Aborted(f"the queries of {plan.rate:,.0f}/s do not fit into memory, {most:,.0f}/s do")
    plan.workload.prepare(say)
    found = calibrate(plan, target)
    if plan.sut == "native" and plan.mode == "performance":
        seconds = 2.0 if plan.duration_s > 60 else 0.3
        found = probe(plan, found, target, seconds)
    say(f"{found.samples_per_s:,.0f} samples/s before the run")
    plan = expecting(plan, found)
    if plan.scenario == "Server" and plan.mode == "performance" and not plan.rate:
        result = search(plan, target, found.samples_per_s / 2, say)
        result.overhead_us = overhead_us(plan)
        return result
    if plan.scenario == "Server" and not plan.rate:
        plan = replace(plan, rate=found.samples_per_s / 2)
    result = run_long_enough(plan, target, say)
    if plan.mode == "performance" and plan.target != "null":
        result.overhead_us = overhead_us(plan)
    if plan.mode == "accuracy":
        result.accuracy = accuracy(plan.workload, plan.output / "mlperf_log_accuracy.json")
        if result.accuracy < plan.workload.least_accuracy:
            result.verdict = "INVALID"
            result.reasons.append("accuracy below the least")
    return result


def finish(result: Result, args: argparse.Namespace) -> None:
    """Writes and shows the report."""
    tables = {"Machine": list(machine.describe(args.load_before).items())}
    result.notes = [*args.notes, *result.notes]
    report.write(result, tables)  # before what takes time, and may fail
    rate = result.samples_per_s
    if result.plan.target != "null" and rate > 0:
        operations = accounting.operations_of(result.plan.workload)
        peaks = accounting.measure_peaks()
        price = args.price_per_hour
        tables["Device"] = accounting.table(operations, peaks, rate, price)
        if args.plan_rate:
            tables["Capacity"] = capacity(result, args.plan_rate)
    report.write(result, tables)
    print(report.title(result))
    for name, value in report.figures(result):
        print(f"  {name}: {value}")
    print(f"  report: {result.plan.output / 'report.html'}")


def capacity(result: Result, rate: float) -> report.Rows:
    """How many such machines a rate needs, by what this run reached."""
    plan = result.plan
    within = f"within {plan.bound_ms:g} ms at p99" if plan.scenario == "Server" else "in bulk"
    if plan.scenario not in ("Server", "Offline"):
        return [("plan", "only Server and Offline say what a machine can do")]
    if result.verdict != "VALID":
        return [("plan", f"none: the run is {result.verdict}")]
    one = plan.rate if plan.scenario == "Server" else result.samples_per_s
    count = accounting.machines_for(rate, one)
    words = f"{count} of these ({one:,.0f} requests/s each, no reserve)"
    return [(f"{plan.workload.name} at {rate:,.0f} requests/s {within}", words)]


def _give_up(result: Result, args: argparse.Namespace, status: int) -> None:
    """Reports a run that cannot end by itself, and ends the process: LoadGen's threads go on."""
    result.plan.output.mkdir(parents=True, exist_ok=True)
    result.notes = [*args.notes, *result.notes]
    report.write(result, {"Machine": list(machine.describe(args.load_before).items())})
    print(report.title(result))
    print("\n".join(f"  {reason}" for reason in result.reasons), flush=True)
    _measure.end_servers()
    os._exit(status)
