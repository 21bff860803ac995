"""What answers the samples: the engine in this process, a server over gRPC or HTTP, or nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlperf.lasting_thread import on_lasting_thread
from mlperf.workloads import Array, Workload

import penstock_client

INFER = "/inference.GRPCInferenceService/ModelInfer"
METADATA = "/inference.GRPCInferenceService/ServerMetadata"
NETWORK = "(Network SUT)"  # by which results of LoadGen over the network are known


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of one sample: its answer's bytes, or why there is none."""

    tag: int
    payload: bytes = b""
    failure: str = ""
    is_lost: bool = False  # the target itself has gone


@dataclass(frozen=True, slots=True)
class Counters:
    """What a model has done since it was loaded; times in ns."""

    requests: int = 0
    rows: int = 0
    batches: int = 0
    queued_ns: int = 0
    busy_ns: int = 0


@dataclass(frozen=True, slots=True)
class NativeSettings:
    """What the native system under test is told besides LoadGen's settings."""

    window: int  # samples under way; 0 = any number
    per_s: float  # samples sent in a second, at the most; 0 = any number
    gives_tensors: bool  # to LoadGen's accuracy log


OnDone = Callable[[list[Completion]], None]


class Target(Protocol):
    """Takes samples by number, and says of each, once, how it ended: from a thread that lasts.

    Lifecycle: on_done is set; submit, counters in any order; close.
    """

    on_done: OnDone

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        """Asks for (tag, sample) each."""

    def answer(self, payload: bytes) -> Array:
        """The answer in a payload; ValueError where it is none."""

    def counters(self) -> Counters:
        """Of the model; blocking."""

    def name(self) -> str:
        """What LoadGen's logs call the system; behind a network it is asked over it."""

    def native(self, module: Any, settings: NativeSettings) -> Any:
        """This target as the native module's Sut; None where it has none."""

    def close(self) -> None:
        """Ends it; what has no answer fails."""


def _nobody(_done: list[Completion]) -> None:
    raise AssertionError("on_done is not set")


class NullTarget:
    """Completes at once, in place, with the reference: what is left is the harness."""

    def __init__(self, workload: Workload) -> None:
        self.on_done: OnDone = _nobody
        self._workload = workload
        self._answers = workload.grpc_answers()

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        """Completes them."""
        self.on_done([Completion(tag, self._answers[sample]) for tag, sample in entries])

    def answer(self, payload: bytes) -> Array:
        """From a ModelInferResponse."""
        return self._workload.grpc_answer(payload)

    def counters(self) -> Counters:
        """None."""
        return Counters()

    def name(self) -> str:
        """That there is none."""
        return "null target"

    def native(self, module: Any, settings: NativeSettings) -> Any:
        """In place, on LoadGen's thread."""
        return module.Sut.null(messages=self._answers, gives_tensors=settings.gives_tensors)

    def close(self) -> None:
        """Nothing."""


def ask_name(address: str) -> str:
    """A server's name and version as it says them, and that it was asked over the network."""
    with penstock_client.Client(address, timeout_s=5) as client:
        found = client.server_metadata()
    return f"{found.name} {found.version} {NETWORK}"


def remote_counters(address: str, model: str) -> Counters:
    """A server's own statistics of a model."""
    with penstock_client.Client(address, timeout_s=5) as client:
        found = client.statistics(model)[0]
    busy_ns = sum(
        part.total_ns
        for each in found.batches
        for part in (each.compute_input, each.compute_infer, each.compute_output)
    )
    return Counters(
        found.success.count,
        found.inference_count,
        found.execution_count,
        found.queue.total_ns,
        busy_ns,
    )


class GrpcTarget:
    """A server over gRPC, by the native client of clients/cpp; one thread takes the answers."""

    def __init__(self, workload: Workload, address: str, connections: int = 1) -> None:
        from penstock import _core

        self.on_done: OnDone = _nobody
        self._workload = workload
        self._address = address
        self._requests = workload.grpc_requests()
        self._outcomes = _core.LOAD_OUTCOMES
        self._connections = connections
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._client = _core.LoadClient(
            host=self._host, port=self._port, path=INFER, connections=connections
        )
        self._is_closing = threading.Event()
        self._thread = on_lasting_thread(self._take)

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        """Sends them."""
        self._client.submit([(tag, self._requests[sample]) for tag, sample in entries])

    def _take(self) -> None:
        while not self._is_closing.is_set():
            if taken := self._client.take(0.2):
                self.on_done([self._completion(*each) for each in taken])

    def _completion(self, tag: int, outcome: int, payload: bytes, _latency_ns: int) -> Completion:
        if outcome == 0:
            return Completion(tag, payload)
        name = self._outcomes[outcome]
        text = payload.decode(errors="replace")
        is_lost = name in ("connection lost", "UNAVAILABLE") and "queue" not in text
        return Completion(tag, failure=f"{name}: {text}", is_lost=is_lost)

    def answer(self, payload: bytes) -> Array:
        """From a ModelInferResponse."""
        return self._workload.grpc_answer(payload)

    def counters(self) -> Counters:
        """The server's statistics."""
        return remote_counters(self._address, self._workload.name)

    def name(self) -> str:
        """The server's."""
        return ask_name(self._address)

    def native(self, module: Any, settings: NativeSettings) -> Any:
        """With connections of its own."""
        return module.Sut.grpc(
            host=self._host,
            port=self._port,
            path=INFER,
            name_path=METADATA,
            connections=self._connections,
            messages=self._requests,
            window=settings.window,
            per_s=settings.per_s,
            gives_tensors=settings.gives_tensors,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._is_closing.set()
        self._client.close()
        self._thread.join()


class EngineTarget:
    """Penstock's core in this process, without any transport: one thread submits and takes."""

    def __init__(self, workload: Workload, repository: Path) -> None:
        self.on_done: OnDone = _nobody
        self._workload = workload
        self._repository = repository
        self._requests = workload.grpc_requests()
        self._submitted: deque[Sequence[tuple[int, int]]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = on_lasting_thread(self._run)
        self._is_ready.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # whoever waits must hear of it
            self._failure = error
        finally:
            self._is_ready.set()

    async def _serve(self) -> None:
        from penstock.config import ServerConfig
        from penstock.repository.core_engine import CoreEngine
        from penstock.repository.manager import ModelManager
        from penstock.wiring import make_core, repository_settings

        config = ServerConfig(model_repository=(self._repository,))
        core = make_core(config)
        core.start()
        self._engine = core.engine
        self._manager = ModelManager(CoreEngine(core), repository_settings(config))
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self._manager.start()
            self._loop.add_reader(core.engine.completion_fd, self._on_completions)
            self._loop.add_reader(self._wake_fd, self._on_submitted)
            self._is_ready.set()
            await self._stop.wait()
        finally:
            await self._manager.close(config.exit_timeout_secs)
            await core.close(config.exit_timeout_secs)

    def submit(self, entries: Sequence[tuple[int, int]]) -> None:
        """Hands them to the engine's thread."""
        self._submitted.append(entries)
        os.eventfd_write(self._wake_fd, 1)

    def _on_submitted(self) -> None:
        os.eventfd_read(self._wake_fd)
        while self._submitted:
            for tag, sample in self._submitted.popleft():
                self._engine.infer(self._requests[sample], 0, tag, False)
        self._deliver(self._engine.flush())

    def _on_completions(self) -> None:
        self._deliver(self._engine.take_completions())

    def _deliver(self, completions: Sequence[Any]) -> None:
        if completions:
            self.on_done([self._completion(*each) for each in completions])

    def _completion(
        self, tag: int, code: int, payload: bytes | None, message: str | None
    ) -> Completion:
        if code == 0:
            return Completion(tag, payload or b"")
        return Completion(tag, failure=f"code {code}: {message}")

    def answer(self, payload: bytes) -> Array:
        """From a ModelInferResponse."""
        return self._workload.grpc_answer(payload)

    def counters(self) -> Counters:
        """The version's own."""
        found = self._manager.statistics(self._workload.name)[0].counters
        return Counters(
            found["success"]["count"],
            found["inference_count"],
            found["execution_count"],
            found["queue"]["ns"],
            found["busy_ns"],
        )

    def name(self) -> str:
        """Where it runs."""
        return "Penstock's engine in process"

    def native(self, module: Any, settings: NativeSettings) -> Any:
        """The same engine; this object's thread then only waits."""
        return module.Sut.engine(
            engine=self._engine.shared_memory,
            messages=self._requests,
            window=settings.window,
            per_s=settings.per_s,
            gives_tensors=settings.gives_tensors,
        )

    def close(self) -> None:
        """Ends the core and its thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        os.close(self._wake_fd)
