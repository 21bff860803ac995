"""A batch job beside online requests: what the job costs them, and what it makes of the rest.

Run: .venv/bin/python bench/batch_beside_online.py [--rounds 5] [--requests 1000]

ResNet-50 v1.5 with seeded random weights, run by OpenVINO, one instance, no queue delay. Online
requests are of one image each, sent open-loop: Poisson arrivals at half of the peak, which is
measured first with a full batch in flight; latency counts from the intended time, and every answer
is compared. A round is: online alone; the job alone; online beside the job, with the arrivals that
it had alone, so that what differs is the job. The job is one of the server's own
(penstock.v1.JobService) and outlasts the phase, or the run fails. The instance's busy time, the
rows of the job and the time of its batches are the server's own counters, read before and after
each phase. Percentiles are of all requests of all rounds, with the spread of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.request import urlopen

import _measure
import grpc
import numpy as np
import openvino as ov
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from openvino_serving import resnet50
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2

from penstock._messages import jobs_pb

INFER = "/inference.GRPCInferenceService/ModelInfer"
JOBS = "/penstock.v1.JobService"
MODEL = "resnet50"
MAX_BATCH_SIZE = 8
SHAPE = [1, 3, 224, 224]
FILE_ROWS = 64
CONFIG = """
backend: "openvino"
max_batch_size: {rows}
dynamic_batching {{ }}
parameters {{ key: "INFERENCE_PRECISION_HINT" value: {{ string_value: "{precision}" }} }}
"""
READY = r"is ready: gRPC (\S+?),.* metrics (\S+)"
BATCHES = "penstock_background_batches_total"
ROWS = "penstock_background_rows_total"
BUSY = "penstock_instance_busy_seconds_total"
BATCH_BUSY = "penstock_background_busy_seconds_total"


@dataclass
class Phase:
    """What one phase of one round gave.

    Attributes:
        seconds: how long it took.
        counters: the server's, by how much they grew.
        latencies_s: of its online requests.
    """

    seconds: float
    counters: dict[str, float]
    latencies_s: list[float] = field(default_factory=list)

    def per_second(self, counter: str) -> float:
        return self.counters[counter] / self.seconds

    @property
    def batch_ms(self) -> float:
        """Of the job's batches, the mean."""
        return 1000 * self.counters[BATCH_BUSY] / max(1.0, self.counters[BATCHES])


class Server:
    """The server under test, seen from outside."""

    def __init__(self, channel: grpc.aio.Channel, metrics: str) -> None:
        self._infer = channel.unary_unary(INFER, None, None)
        self._channel = channel
        self._metrics = metrics
        self._request = request()
        self._expected: Any = None

    async def learn_answer(self) -> None:
        """What every later answer must be, but for rounding in larger batches."""
        self._expected = logits(await self._infer(self._request))

    async def ask(self) -> None:
        """One online request; SystemExit for a wrong answer."""
        found = logits(await self._infer(self._request))
        if not np.allclose(found, self._expected, rtol=0.05, atol=0.05):
            raise SystemExit("an answer is wrong")

    async def peak(self, images: int) -> float:
        """Images per second, with a full batch in flight."""
        left = iter(range(images))

        async def work() -> None:
            for _ in left:
                await self.ask()

        began = perf_counter()
        await asyncio.gather(*(work() for _ in range(MAX_BATCH_SIZE)))
        return images / (perf_counter() - began)

    async def open_loop(self, rate: float, requests: int, seed: int) -> list[float]:
        """Latencies from the intended times, which do not heed the answers."""
        arrivals = random.Random(seed)
        loop = asyncio.get_running_loop()
        due = loop.time()
        sent = []

        async def timed(due: float) -> float:
            await self.ask()
            return loop.time() - due

        for _ in range(requests):
            due += arrivals.expovariate(rate)
            await asyncio.sleep(max(0.0, due - loop.time()))
            sent.append(asyncio.ensure_future(timed(due)))
        return await asyncio.gather(*sent)

    async def counters(self) -> dict[str, float]:
        """The model's, those with labels of their own left out."""
        text = await asyncio.to_thread(lambda: urlopen(self._metrics).read().decode())
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.labels == {"model": MODEL, "version": "1"}
        }

    async def phase(self, work: Any) -> Phase:
        """Awaits `work`, which gives latencies or nothing."""
        before, began = await self.counters(), perf_counter()
        latencies = await work
        seconds, after = perf_counter() - began, await self.counters()
        grown = {name: after[name] - before[name] for name in (BATCHES, ROWS, BUSY, BATCH_BUSY)}
        return Phase(seconds, grown, latencies or [])

    async def job(self, rpc: str, message: Any) -> Any:
        """Calls the JobService; gives the job."""
        call = self._channel.unary_unary(f"{JOBS}/{rpc}", None, jobs_pb.Job.FromString)
        return await call(message.SerializeToString())

    @asynccontextmanager
    async def job_beside(self, name: str) -> AsyncIterator[None]:
        """A job that runs until the block ends, and must not end before."""
        spec = jobs_pb.JobSpec(model=MODEL, input="rows", output=name)
        await self.job("Submit", jobs_pb.SubmitRequest(id=name, spec=spec))
        first = (await self.counters())[BATCHES]
        while (await self.counters())[BATCHES] < first + 4:
            pass
        yield
        ended = await self.job("Cancel", jobs_pb.JobRequest(id=name))
        if jobs_pb.Job.State.Name(ended.state) != "CANCELLED":
            raise SystemExit(f"the job ended too early: {ended}")
        while (await self.counters())["penstock_background_running_requests"]:
            pass


def request() -> bytes:
    """A ModelInferRequest of one image."""
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name="image", datatype="FP32", shape=SHAPE)
    message.raw_input_contents.append(image().astype(np.float32).tobytes())
    body: bytes = message.SerializeToString()
    return body


def image() -> Any:
    return np.random.default_rng(1).integers(0, 4, SHAPE, np.uint8)


def logits(answer: bytes) -> Any:
    response = service_pb2.ModelInferResponse.FromString(answer)
    return np.frombuffer(response.raw_output_contents[0], np.float32)


def write_rows(folder: Path, rows: int) -> None:
    """The job's input: one file of 64 images, under as many names as it takes."""
    folder.mkdir()
    values = np.tile(image().ravel(), FILE_ROWS)
    column = pa.ListArray.from_arrays(
        pa.array(np.arange(0, len(values) + 1, values.size // FILE_ROWS, dtype=np.int32)),
        pa.array(values),
    )
    first = folder / "00000.parquet"
    pq.write_table(pa.table({"image": column}), first)
    for index in range(1, -(-rows // FILE_ROWS)):
        os.link(first, folder / f"{index:05}.parquet")


def percentile_ms(phases: list[Phase], percent: float) -> float:
    """Of all their requests."""
    every = [latency for phase in phases for latency in phase.latencies_s]
    return 1000 * float(np.percentile(every, percent, method="higher"))


def of_rounds(phases: list[Phase], percent: float) -> str:
    each = [percentile_ms([phase], percent) for phase in phases]
    return f"{min(each):,.1f}..{max(each):,.1f}"


def show(alone: list[Phase], job: list[Phase], beside: list[Phase], rows: int) -> None:
    """The table."""
    count = sum(len(phase.latencies_s) for phase in beside)
    print(f"\n{count} online requests each; background batches of {rows} rows at most\n")
    print(f"{'':34} {'alone':>10} {'beside':>10} {'ratio':>7}   rounds: alone; beside")
    p99 = {}
    for percent in (50.0, 99.0):
        a, b = percentile_ms(alone, percent), percentile_ms(beside, percent)
        p99 = {"alone": a, "beside": b}
        spread = f"{of_rounds(alone, percent)}; {of_rounds(beside, percent)}"
        print(f"{f'online p{percent:.0f} ms':34} {a:10,.1f} {b:10,.1f} {b / a:7.2f}   {spread}")
    rates = [[phase.per_second(ROWS) for phase in phases] for phases in (job, beside)]
    a, b = (float(np.median(each)) for each in rates)
    spread = "; ".join(f"{min(each):,.1f}..{max(each):,.1f}" for each in rates)
    print(f"{'job rows/s':34} {a:10,.1f} {b:10,.1f} {b / a:7.2f}   {spread}")
    busy = [[100 * phase.per_second(BUSY) for phase in phases] for phases in (alone, beside)]
    a, b = (float(np.median(each)) for each in busy)
    spread = "; ".join(f"{min(each):,.1f}..{max(each):,.1f}" for each in busy)
    print(f"{'instance busy %':34} {a:10,.1f} {b:10,.1f} {'':7}   {spread}")
    lone, shared = (float(np.median([p.batch_ms for p in ps])) for ps in (job, beside))
    print(f"{'a background batch ms':34} {lone:10,.1f} {shared:10,.1f} {shared / lone:7.2f}\n")
    most = p99["alone"] + shared
    claim = f"p99 beside <= p99 alone + one background batch = {most:.1f} ms"
    verdict(claim, p99["beside"] <= most)
    verdict("p99 beside <= 1.5 x p99 alone", p99["beside"] <= 1.5 * p99["alone"])
    verdict("instance busy >= 95 %", b >= 95)


def verdict(claim: str, holds: bool) -> None:
    print(f"{'reached' if holds else 'MISSED '}  {claim}")


async def measure(address: str, metrics: str, asked: argparse.Namespace) -> None:
    """All rounds."""
    options = [("grpc.max_receive_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        server = Server(channel, metrics)
        await server.learn_answer()
        await server.peak(asked.images)
        peak = float(np.median([await server.peak(asked.images) for _ in range(3)]))
        print(f"peak {peak:.1f} images/s, so {peak / 2:.1f} online requests/s", flush=True)
        alone, job, beside = [], [], []
        for round_ in range(asked.rounds):
            load = server.open_loop(peak / 2, asked.requests, round_)
            alone.append(await server.phase(load))
            async with server.job_beside(f"job-{round_}"):
                job.append(await server.phase(asyncio.sleep(asked.job_seconds)))
                load = server.open_loop(peak / 2, asked.requests, round_)
                beside.append(await server.phase(load))
            p99 = [percentile_ms(phases[-1:], 99) for phases in (alone, beside)]
            print(f"round {round_ + 1}: p99 {p99[0]:.0f} -> {p99[1]:.0f} ms", flush=True)
        show(alone, job, beside, asked.background_batch_size)


def main() -> None:
    """Serves and measures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="online, per phase and round")
    parser.add_argument("--background-batch-size", type=int, default=1)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--images", type=int, default=64, help="per measurement of the peak")
    parser.add_argument("--job-seconds", type=float, default=15.0, help="of the job alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        root = Path(folder)
        model = root / "models" / MODEL
        (model / "1").mkdir(parents=True)
        ov.save_model(resnet50(), model / "1" / "model.xml", compress_to_fp16=False)
        (model / "config.pbtxt").write_text(
            CONFIG.format(rows=MAX_BATCH_SIZE, precision=asked.precision)
        )
        (root / "jobs").mkdir()
        # The job gets half of the device at least: as many rows as there are online requests.
        write_rows(root / "jobs" / "rows", 4 * asked.requests + int(200 * asked.job_seconds))
        command = [sys.executable, "-m", "penstock", "serve", str(root / "models")]
        command += ["--grpc-port=0", "--http-port=0", "--metrics-port=0", "--shutdown-grace-secs=0"]
        command += [f"--jobs-root={root / 'jobs'}"]
        command += [f"--background-batch-size={asked.background_batch_size}"]
        with _measure.server(command, READY) as (_, found):
            metrics = f"http://{found[2]}/metrics"
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(found[1], metrics, asked))


if __name__ == "__main__":
    main()
