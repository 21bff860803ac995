"""The parts of end_to_end.py: what is served, lost and refused, held against what was promised."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from gpu.rows import (
    ONCE,
    PATIENCE_S,
    Answer,
    Asker,
    Load,
    Server,
    Workers,
    WrongError,
    answer_of,
    serving,
    write_rows,
)
from gpu.table import Row

from penstock_client import (
    Client,
    CudaMemory,
    PenstockError,
    ResourceExhaustedError,
    SharedMemory,
    SharedMemoryError,
    UnavailableError,
)

__all__ = ["Settings", "WrongError", "fault", "memory", "serve"]

Found = Iterator[Row | str]
_CLIENTS, _ROUNDS = 8, 3
_TRAP_AT = -4
_NARROW = (1, 16)
_TERABYTE_MB = 1 << 20
_METRICS = {
    "penstock_graph_runs_total": "batches",
    "penstock_uncaptured_runs_total": "batches",
    "penstock_model_device_busy_seconds_total": "s",
}
_OF_GPUS = "penstock_gpu_"  # as the driver tells them: utilisation, memory, power, energy


@dataclass(frozen=True)
class Settings:
    """What parts are given.

    Attributes:
        plugins: the folder of the plug-in that has the models.
        apis: how CUDA is called, in turn: "runtime", "driver".
        seconds: of a measurement.
        shape: of x in a request, whose rates are measured.
        environment: of servers, beyond this process's.
        answered_within_s: a request of a lost device, at most.
    """

    plugins: Path
    apis: tuple[str, ...] = ("runtime", "driver")
    seconds: float = 1.0
    shape: tuple[int, int] = (8, 37632)  # rows of 150 KB, as images of ResNet's
    environment: Mapping[str, str] = field(default_factory=dict)
    answered_within_s: float = 1.0

    @contextmanager
    def served(self, api: str, models: Mapping[str, str], *flags: str) -> Iterator[Server]:
        """A server with these models; words of each one's plan, by its name."""
        with TemporaryDirectory(prefix="penstock-bench-") as folder:
            for name, words in models.items():
                write_rows(Path(folder), name, words=words)
            option = f"--backend-config=fixture,api={api}"
            with serving(
                Path(folder), self.plugins, option, *flags, environment=self.environment
            ) as server:
                yield server


def serve(settings: Settings) -> Found:
    """Tensors in messages, in system shared memory and in the GPU's: right, and how many."""
    words = f"width={settings.shape[1]}"
    for api in settings.apis:
        with settings.served(api, {"rows": words}, "--allow-client-shm=true") as server:
            yield from _rates(server, api, "messages", settings, None)
            yield from _rates(server, api, "system shared memory", settings, SharedMemory.create)
            try:
                yield from _rates(server, api, "the GPU's memory", settings, CudaMemory.create)
                yield from _torch(server, settings.shape)
            except SharedMemoryError as error:
                yield f"{api}: tensors in the GPU's memory are left out: {error}"
            yield from _counted(server, api)
            yield from _told_by_driver(server, api)
            if any("cannot be registered" in line for line in server.log):
                raise WrongError(f"{api}: the slabs could not be registered as pinned memory")


def _rates(
    server: Server,
    api: str,
    where: str,
    settings: Settings,
    create: Callable[[int], SharedMemory | CudaMemory] | None,
) -> Found:
    """Requests per second of several clients, each of whose answers is looked at."""
    with Client(server.grpc, retry=ONCE) as client, ExitStack() as memories:

        def memory() -> SharedMemory | CudaMemory | None:
            if create is None:
                return None
            made = create(Asker.memory_bytes(settings.shape))
            memories.enter_context(made)
            memories.enter_context(client.shared_memory(made))
            return made

        makers = [
            partial(Asker, server.grpc, number, settings.shape, memory())
            for number in range(_CLIENTS)
        ]
        with Load(makers) as load:
            load.await_right(2 * _CLIENTS)
            began = time.monotonic()
            load.go_on(settings.seconds * _ROUNDS)
        expect_right(load.answers)
    rates = _per_round(load.answers, began, settings.seconds)
    what = f"{api}: {settings.shape[0]} rows of {4 * settings.shape[1]:,} bytes in {where}"
    yield Row("served, our kernel", what, "requests/s", median(rates), min(rates), max(rates))


def _per_round(answers: list[Answer], began: float, seconds: float) -> list[float]:
    counts = [0] * _ROUNDS
    for answer in answers:
        at = int((answer.ended - began) // seconds)
        if 0 <= at < _ROUNDS:
            counts[at] += 1
    return [count / seconds for count in counts]


def expect_right(answers: list[Answer]) -> None:
    """None of them is wrong, or failed."""
    if odd := [each.outcome for each in answers if each.outcome != "right"]:
        raise WrongError(f"{len(odd)} of {len(answers)} answers are not right: {odd[0]}")


def _torch(server: Server, shape: tuple[int, int]) -> Found:
    """A tensor of torch's, there and back."""
    try:
        torch = import_module("torch")
    except ImportError:
        yield "torch's tensors are left out: it is not installed"
        return
    if not torch.cuda.is_available():
        yield "torch's tensors are left out: it finds no GPU"
        return
    x = torch.rand(shape, device="cuda")
    with (
        Client(server.grpc, retry=ONCE) as client,
        CudaMemory.create(Asker.memory_bytes(shape)) as memory,
        client.shared_memory(memory),
    ):
        placed = memory.put(x)
        room = memory.room(placed.byte_size, -(-placed.end // 256) * 256)
        b = np.zeros((shape[0], 1), np.float32)
        result = client.infer("rows", {"x": placed, "b": b}, outputs={"y": room, "n": None})
        row = torch.from_numpy(result["n"].astype(np.float32)).cuda()[:, None]
        if not bool((torch.from_dlpack(result["y"]) == 2 * x + row).all()):
            raise WrongError("a tensor of torch's was answered wrongly")
    yield f"torch {torch.__version__}: a tensor on the GPU was answered rightly, there"


def _counted(server: Server, api: str) -> Found:
    """Batches with and without a graph, and how long the device was at them."""
    for name, unit in _METRICS.items():
        count = sum(_samples(server, f'{name}{{model="rows"').values())
        yield Row.single("served, our kernel", f"{api}: {name}", unit, count)


def _told_by_driver(server: Server, api: str) -> Found:
    """What the server's metrics have of the GPUs; why they have nothing, where its log says so."""
    told = _samples(server, _OF_GPUS)
    for sample, value in told.items():
        yield Row.single("GPUs in the metrics", f"{api}: {sample}", "", value)
    for key in (key for key in told if "memory_used_bytes" in key):
        if not 0 < told[key] <= told[key.replace("memory_used_bytes", "memory_bytes")]:
            raise WrongError(f"{api}: {key} is {told[key]}, of which there is not as much")
    yield from (line.strip() for line in server.log if "GPUs are not" in line)


def _samples(server: Server, begin: str) -> dict[str, float]:
    """The metrics' samples that begin so."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=PATIENCE_S) as page:
        lines = page.read().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith(begin))
    return {sample: float(value) for sample, _, value in found}


class Readiness(Workers):
    """Watches whether the server takes inference, until the `with` block ends."""

    def __init__(self, url: str) -> None:
        """At `url`, from `with` on."""
        super().__init__([self._watch])
        self.changes: list[tuple[float, bool]] = []
        self._url = url

    def await_change(self, to: bool, after: float) -> float:
        """When it became so, after a time."""

        def found() -> float | None:
            return next((at for at, how in self.changes if how is to and at > after), None)

        if not self._await(lambda: found() is not None):
            raise WrongError(f"the server did not become {'' if to else 'un'}ready")
        when = found()
        assert when is not None
        return when

    def _watch(self) -> None:
        with Client(self._url, retry=ONCE) as client:
            while not self._over.is_set():
                is_ready = client.server_ready()
                if not self.changes or self.changes[-1][1] is not is_ready:
                    with self._changed:
                        self.changes.append((time.monotonic(), is_ready))
                        self._changed.notify_all()


def fault(settings: Settings) -> Found:
    """A kernel that traps under load: the device is lost, and served again by another process."""
    for api in settings.apis:
        words = {"rows": f"trap_at={_TRAP_AT}"}
        with settings.served(api, words, "--strict-readiness=true") as server:
            yield from _lose(server, api, settings.answered_within_s)


def _lose(server: Server, api: str, within_s: float) -> Found:
    makers = [partial(Asker, server.grpc, number, _NARROW) for number in range(_CLIENTS)]
    trap = partial(Asker, server.grpc, _TRAP_AT, _NARROW)
    with Readiness(server.grpc) as readiness, Load(makers) as load:
        readiness.await_change(True, 0)
        load.await_right(20 * _CLIENTS)
        with trap() as asker:
            trapped = answer_of(asker)
        unready = readiness.await_change(False, trapped.began)
        ready = readiness.await_change(True, unready)
        load.await_right(20 * _CLIENTS)
    yield from told_of_loss(api, trapped, load.answers, unready, ready, within_s)


def told_of_loss(
    api: str,
    trapped: Answer,
    answers: list[Answer],
    unready: float,
    ready: float,
    within_s: float,
) -> Found:
    """How the request that trapped and those beside it were answered, and how long that took."""
    if trapped.kind is not UnavailableError:
        raise WrongError(f"the request that trapped was answered: {trapped.outcome}")
    odd = [
        each.outcome
        for each in answers
        if each.outcome != "right" and each.kind is not UnavailableError
    ]
    if odd:
        raise WrongError(f"answers of a lost device are right or UNAVAILABLE: {odd[0]}")
    failed = [each for each in answers if each.kind is not None]
    lost = [each for each in failed if each.began < trapped.ended]
    slowest = max(each.ended - max(each.began, trapped.began) for each in [trapped, *failed])
    table = "a device that is lost"
    yield Row.single(table, f"{api}: requests in flight then", "requests", 1 + len(lost))
    yield Row.single(table, f"{api}: UNAVAILABLE after, at most", "ms", 1e3 * slowest)
    yield Row.single(table, f"{api}: server not ready after", "ms", 1e3 * (unready - trapped.began))
    yield Row.single(table, f"{api}: server ready again after", "s", ready - trapped.began)
    if slowest >= within_s:
        raise WrongError(f"a request was answered {slowest:.1f} s after the trap")
    yield f"{api}: {trapped.outcome}"


def memory(settings: Settings) -> Found:
    """A model that asks for more memory than there is: refused, and the others go on."""
    models = {"rows": "", "greedy": f"context_mb={_TERABYTE_MB}", "late": ""}
    flags = ("--model-control-mode=explicit", "--load-model=rows")
    for api in settings.apis:
        with (
            settings.served(api, models, *flags) as server,
            Client(server.grpc, retry=ONCE) as client,
        ):
            makers = [partial(Asker, server.grpc, each, _NARROW) for each in range(_CLIENTS)]
            with Load(makers) as load:
                load.await_right(20 * _CLIENTS)
                refusal = _refused(client, "greedy")
                load.await_right(20 * _CLIENTS)
                client.load_model("late")
                load.await_right(20 * _CLIENTS)
            expect_right(load.answers)
            with Asker(server.grpc, 1, _NARROW, model="late") as asker:
                expect_right([answer_of(asker)])
            yield Row.single(
                "memory that there is not", f"{api}: right meanwhile", "requests", len(load.answers)
            )
            yield f"{api}: {refusal}"


def _refused(client: Client, model: str) -> str:
    try:
        client.load_model(model)
    except PenstockError as error:
        if not isinstance(error, ResourceExhaustedError):
            raise WrongError(f"it is no refusal for want of memory: {error}") from None
        if str(_TERABYTE_MB << 20) not in str(error):
            raise WrongError(f"the refusal does not say how much was asked for: {error}") from None
        return str(error)
    raise WrongError("a model was loaded that asks for a terabyte of a GPU's memory")
