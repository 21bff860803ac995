"""Full load with clients that come and go, for minutes; ends with a verdict.

Run: .venv/bin/python bench/soak.py [--minutes 10] [--transport native] [--seed 1]

Several load clients at a time, each for a second or so and each of another shape: 1 to 16
connections, 1 to 64 requests in flight, unary or on streams; every answer is compared to the byte.
One in four is killed in the middle, with whatever it has under way. Others hang up politely: calls
and streams are cancelled, time out, or go with their channel.

The verdict is "passed", and the exit status 0, if

- no answer was wrong, missing or late without reason,
- afterwards nothing is in flight and Penstock's metrics have completed what they accepted, and
  answered at least what the clients were answered,
- as many files are open as before,
- resident memory is flat: the medians of the first and the last quarter of the samples after the
  warm-up differ by less than --most-mb.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, median
from urllib.request import urlopen

import _measure
import grpc
import numpy as np
from tritonclient.grpc import service_pb2

SERVICE = "/inference.GRPCInferenceService/"
READY = r"is ready: gRPC (?P<grpc>[^\s,]+),.*metrics (?:http://)?(?P<metrics>[^\s,/]+)"
LOADERS = 4
KILLED = 0.25
WARM_UP_SHARE = 0.2
PAUSE_S = 0.1  # of those who hang up, who would else keep a core busy
SETTLE_S = 30.0


@dataclass
class Bodies:
    """Files of requests and of their answers; a stream's answers have a parameter more."""

    requests: list[bytes]
    unary: list[str] = field(default_factory=list)
    stream: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What the clients saw, and the server's memory meanwhile."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    rss: list[tuple[float, float]] = field(default_factory=list)


def main() -> None:
    """Runs the soak; exits with 1 where the verdict is bad."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    transports = ("native", "grpcio")
    default = _measure.default_transport()
    parser.add_argument("--transport", choices=transports, default=default)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-mb", type=float, default=4, help="that memory may grow")
    args = parser.parse_args()
    with _measure.digits_repository() as repository, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "penstock", "serve", str(repository), "--grpc-port=0"]
        command += ["--http-port=0", "--metrics-port=0"]
        command += _measure.transport_flags(args.transport)
        with _measure.server(command, READY) as (process, found):
            soak = Soak(process.pid, found["grpc"], found["metrics"], Path(folder), args.seed)
            soak.prepare()
            asyncio.run(soak.run(args.minutes * 60))
            is_good = soak.verdict(args.most_mb)
    sys.exit(0 if is_good else 1)


class Soak:
    """Lifecycle: prepare, run, verdict."""

    def __init__(self, pid: int, address: str, metrics: str, folder: Path, seed: int) -> None:
        self._pid = pid
        self._address = address
        self._metrics = metrics
        self._folder = folder
        self._random = random.Random(seed)
        self._tally = Tally()
        self._bodies = Bodies([digits_request(seed) for seed in range(8)])
        self._files = 0

    def prepare(self) -> None:
        """Asks for each answer once, one at a time."""
        with grpc.insecure_channel(self._address) as channel:
            unary = channel.unary_unary(f"{SERVICE}ModelInfer", None, None)
            stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer", None, None)
            for number, request in enumerate(self._bodies.requests):
                (wrapped,) = stream(iter([request]))
                reply = service_pb2.ModelStreamInferResponse.FromString(wrapped)
                self._expect(self._bodies.unary, f"{number}", request, unary(request))
                answer = reply.infer_response.SerializeToString()
                self._expect(self._bodies.stream, f"{number}.stream", request, answer)
        self._files = self._settled_files()

    def _expect(self, flags: list[str], name: str, request: bytes, answer: bytes) -> None:
        asked, expected = self._folder / name, self._folder / f"{name}.answer"
        asked.write_bytes(request)
        expected.write_bytes(answer)
        flags += ["--request", str(asked), "--expect", str(expected)]

    async def run(self, seconds: float) -> None:
        """Everybody at once, for so long; whoever has begun then ends its deed."""
        end_s = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(LOADERS):
                group.create_task(self._repeat(self._load, end_s, 0))
            for deed in (self._cancel, self._stream_left, self._hang_up):
                group.create_task(self._repeat(deed, end_s, PAUSE_S))
            group.create_task(self._watch(end_s))

    async def _repeat(
        self, deed: Callable[[], Awaitable[None]], end_s: float, pause_s: float
    ) -> None:
        while time.monotonic() < end_s:
            await deed()
            await asyncio.sleep(pause_s)

    async def _watch(self, end_s: float) -> None:
        start_s = time.monotonic()
        while (now_s := time.monotonic()) < end_s:
            self._tally.rss.append((now_s - start_s, _measure.rss_mb(self._pid)))
            await asyncio.sleep(1)

    async def _load(self) -> None:
        draw = self._random
        connections, concurrency = draw.choice((1, 2, 4, 16)), draw.choice((1, 4, 16, 64))
        flags = ["--connections", str(connections), "--concurrency", str(concurrency), "--ids"]
        if draw.random() < 0.3:
            flags += [*self._bodies.stream, "--streams", str(draw.choice((1, 4, 8)))]
        else:
            flags += self._bodies.unary
        seconds = draw.uniform(0.3, 2)
        killed_after_s = draw.uniform(0.1, seconds) if draw.random() < KILLED else None
        await self._run_load([*flags, "--duration", f"{seconds:.3f}"], killed_after_s)

    async def _run_load(self, flags: list[str], killed_after_s: float | None) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder) as report:
            command = [str(_measure.LOAD), "--address", self._address, "--json", report.name]
            process = await asyncio.create_subprocess_exec(
                *command, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            try:
                async with asyncio.timeout(killed_after_s):
                    output, _ = await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()
                self._tally.outcomes["load client killed"] += 1
                return
            if process.returncode != 0:
                self._tally.faults.append(f"{' '.join(flags[:5])}: {output.decode()}")
                return
            self._tally.outcomes["load client done"] += 1
            self._tally.outcomes["right answers"] += json.load(report)["ok"]

    async def _cancel(self) -> None:
        """Calls that are cancelled or time out, early or late, or that come to be answered."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer", None, None)
            for _ in range(50):
                request = self._random.choice(self._bodies.requests)
                call = infer(request, timeout=self._random.choice((0.001, 0.01, None)))
                await asyncio.sleep(self._random.uniform(0, 0.005))
                if self._random.random() < 0.5:
                    call.cancel()
                self._tally.outcomes[f"call {(await code_of(call)).name}"] += 1

    async def _stream_left(self) -> None:
        """A stream that is cancelled with requests unanswered."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer", None, None)(None)
            for _ in range(self._random.randrange(1, 50)):
                await stream.write(self._random.choice(self._bodies.requests))
            for _ in range(self._random.randrange(2)):
                await stream.read()
            stream.cancel()
            self._tally.outcomes[f"stream {(await code_of(stream)).name}"] += 1

    async def _hang_up(self) -> None:
        """A channel that closes with calls under way."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            infer = channel.unary_unary(f"{SERVICE}ModelInfer", None, None)
            calls = [infer(self._random.choice(self._bodies.requests)) for _ in range(32)]
            await asyncio.sleep(self._random.uniform(0, 0.01))
            await channel.close(None)
            codes = await asyncio.gather(*(code_of(call) for call in calls))
            self._tally.outcomes.update(f"hung up {code.name}" for code in codes)

    def verdict(self, most_mb: float) -> bool:
        """Prints what happened and whether it was good."""
        faults = [*self._tally.faults, *self._counter_faults(), *self._memory_faults(most_mb)]
        print(
            *(f"{name}: {count:,}" for name, count in sorted(self._tally.outcomes.items())),
            sep="\n",
        )
        for fault in faults:
            print(f"FAULT: {fault}")
        print("verdict:", "failed" if faults else "passed")
        return not faults

    def _counter_faults(self) -> list[str]:
        files = self._settled_files()
        found = self._samples()
        faults = []
        if found["penstock_inflight_requests"] != 0:
            faults.append(f"{found['penstock_inflight_requests']:.0f} requests are still in flight")
        accepted, completed = found["penstock_accepted_total"], found["penstock_completed_total"]
        if accepted != completed:
            faults.append(f"{accepted:.0f} requests were accepted, {completed:.0f} completed")
        answered, right = (
            found["nv_inference_request_success"],
            self._tally.outcomes["right answers"],
        )
        if answered < right:
            faults.append(f"the server answered {answered:.0f}, the clients were answered {right}")
        if files > self._files:
            faults.append(f"{files} files are open, {self._files} were before")
        print(f"accepted {accepted:,.0f}, completed {completed:,.0f}, success {answered:,.0f}")
        return faults

    def _memory_faults(self, most_mb: float) -> list[str]:
        warm = self._tally.rss[int(len(self._tally.rss) * WARM_UP_SHARE) :]
        if len(warm) < 8:
            return ["too short to say anything about memory"]
        quarter = len(warm) // 4
        first, last = (median(mb for _, mb in part) for part in (warm[:quarter], warm[-quarter:]))
        slope = linear_regression([s / 60 for s, _ in warm], [mb for _, mb in warm]).slope
        print(f"resident memory {first:.1f} -> {last:.1f} MiB, slope {slope:+.2f} MiB a minute")
        if last - first < most_mb:
            return []
        return [f"resident memory grew by {last - first:.1f} MiB, {most_mb} are allowed"]

    def _samples(self) -> Counter[str]:
        """The metrics, summed over labels."""
        with urlopen(f"http://{self._metrics}/metrics", timeout=30) as reply:
            text = reply.read().decode()
        found: Counter[str] = Counter()
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            found[name] += float(value)  # type: ignore[assignment]  # a Counter adds floats as well
        return found

    def _settled_files(self) -> int:
        """Open files, once as few as before are open and nothing is in flight, or time is up."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            files = len(list(Path(f"/proc/{self._pid}/fd").iterdir()))
            is_quiet = self._samples()["penstock_inflight_requests"] == 0
            if (is_quiet and files <= self._files) or time.monotonic() > end_s or not self._files:
                return files


async def code_of(call: grpc.aio.Call) -> grpc.StatusCode:
    """How a call ended. Its failure is expected, and is not raised."""
    try:
        code: grpc.StatusCode = await call.code()
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
    return code


def digits_request(seed: int) -> bytes:
    """One of several images."""
    request = service_pb2.ModelInferRequest(model_name="digits")
    request.inputs.add(name="X", datatype="FP32", shape=[1, 64])
    request.outputs.add(name="probabilities")
    values = np.random.default_rng(seed).integers(0, 17, 64).astype(np.float32)
    request.raw_input_contents.append(values.tobytes())
    message: bytes = request.SerializeToString()
    return message


if __name__ == "__main__":
    main()
