"""The state table, the stop signals and the order of the ladder down."""

import asyncio
import gc
import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from penstock.errors import StartupError
from penstock.lifecycle import (
    EXIT_FAILURE,
    TRANSITIONS,
    Lifecycle,
    State,
    StopSignals,
    run_to_exit_code,
    serve_until,
    serve_until_signal,
    stop_in_order,
)

LEGAL = {
    (State.STARTING, State.READY),
    (State.STARTING, State.STOPPED),
    (State.READY, State.DRAINING),
    (State.DRAINING, State.STOPPED),
}
PATHS = {
    State.STARTING: (),
    State.READY: (State.READY,),
    State.DRAINING: (State.READY, State.DRAINING),
    State.STOPPED: (State.STOPPED,),
}


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Goes through everything again, whatever a test served."""
    yield
    gc.unfreeze()


def in_state(state: State) -> Lifecycle:
    lifecycle = Lifecycle()
    for step in PATHS[state]:
        lifecycle.move(step)
    return lifecycle


def test_every_state_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(("start", "end"), list(itertools.product(State, State)))
async def test_only_moves_of_the_table_are_legal(start: State, end: State) -> None:
    lifecycle = in_state(start)
    if (start, end) in LEGAL:
        lifecycle.move(end)
        assert lifecycle.state is end
        await lifecycle.reached(end)
    else:
        with pytest.raises(RuntimeError, match=f"cannot go from {start.value} to {end.value}"):
            lifecycle.move(end)
        assert lifecycle.state is start


async def test_waiting_for_a_state_ends_when_it_is_reached() -> None:
    lifecycle = Lifecycle()
    waiter = asyncio.create_task(lifecycle.reached(State.READY))
    lifecycle.move(State.READY)
    lifecycle.move(State.DRAINING)
    await waiter


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal_is_an_event_and_the_second_would_be_fatal(
    number: signal.Signals,
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        assert await signals.wait() == number
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert {each: signal.getsignal(each) for each in before} == before


async def test_handlers_are_restored_when_no_signal_came() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with StopSignals():
        pass
    assert {each: signal.getsignal(each) for each in before} == before


class Recorder:
    """Something stoppable that writes down what was called."""

    def __init__(self, core_ends: bool = True, models_end: bool = True) -> None:
        self.calls: list[str] = []
        self.timeouts: list[float] = []
        self.core_ends = core_ends
        self.models_end = models_end

    def withdraw(self) -> None:
        self.calls.append("withdraw")

    def turn_away(self) -> None:
        self.calls.append("turn_away")

    def stop_accepting(self) -> None:
        self.calls.append("stop_accepting")

    async def stop_transport(self, timeout_s: float) -> None:
        self.calls.append("stop_transport")
        self.timeouts.append(timeout_s)

    async def stop_models(self, timeout_s: float) -> bool:
        self.calls.append("stop_models")
        self.timeouts.append(timeout_s)
        return self.models_end

    async def stop_core(self, timeout_s: float) -> bool:
        self.calls.append("stop_core")
        self.timeouts.append(timeout_s)
        return self.core_ends

    async def stop_http(self) -> None:
        self.calls.append("stop_http")


RUNGS = ["withdraw", "turn_away", "stop_accepting", "stop_transport", "stop_models"]
RUNGS += ["stop_core", "stop_http"]


@pytest.mark.parametrize("grace_s", [0.0, 0.01])
async def test_rungs_are_taken_in_order(grace_s: float) -> None:
    server = Recorder()
    assert await stop_in_order(server, grace_s=grace_s, timeout_s=5)
    assert server.calls == RUNGS
    assert server.timeouts[0] <= 5
    assert server.timeouts[1] <= server.timeouts[0]


async def test_server_serves_on_during_the_grace_time() -> None:
    server = Recorder()
    stop = asyncio.create_task(stop_in_order(server, grace_s=3600, timeout_s=5))
    while not server.calls:
        await asyncio.wait({stop}, timeout=0)
    assert server.calls == ["withdraw"]
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop


async def test_core_that_does_not_stop_is_told_and_left(caplog: pytest.LogCaptureFixture) -> None:
    server = Recorder(core_ends=False)
    is_clean = await stop_in_order(server, grace_s=0, timeout_s=0)
    assert not is_clean
    assert server.timeouts == [0, 1, 1]  # idle threads are joined all the same
    assert server.calls == RUNGS
    assert "a model still runs" in caplog.text


async def test_models_that_do_not_stop_are_told_and_left(caplog: pytest.LogCaptureFixture) -> None:
    server = Recorder(models_end=False)
    assert not await stop_in_order(server, grace_s=0, timeout_s=0)
    assert server.calls == RUNGS
    assert "one is still being loaded or drained" in caplog.text


class FakeService:
    """Starts when it may, or fails to; notes the grace that it is stopped with."""

    def __init__(self, error: Exception | None = None, *, is_slow: bool = False) -> None:
        self.started = asyncio.Event()
        self.graces: list[float] = []
        self._error = error
        self._is_slow = is_slow

    async def start(self) -> None:
        self.started.set()
        if self._is_slow:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error

    async def stop(self, grace_s: float = 0.0) -> None:
        self.graces.append(grace_s)


def grace_of(number: signal.Signals) -> float:
    return 7.0 if number == signal.SIGTERM else 0.0


@pytest.mark.parametrize(("number", "grace_s"), [(signal.SIGTERM, 7.0), (signal.SIGINT, 0.0)])
async def test_service_is_stopped_with_the_grace_of_the_signal(
    number: signal.Signals, grace_s: float
) -> None:
    service = FakeService()
    serving = asyncio.create_task(serve_until_signal(service, grace_of))
    await service.started.wait()
    os.kill(os.getpid(), number)
    await serving
    assert service.graces == [grace_s]


async def test_what_the_start_has_made_is_kept_from_the_collector() -> None:
    spared: list[int] = []

    async def until_over(_ending: asyncio.Task[signal.Signals]) -> float:
        spared.append(gc.get_freeze_count())
        return 0.0

    with StopSignals() as signals:
        await serve_until(FakeService(), signals, until_over)
    assert spared[0] > len(gc.get_objects())


async def test_signal_ends_a_start_and_stops_what_there_is() -> None:
    service = FakeService(is_slow=True)
    serving = asyncio.create_task(serve_until_signal(service, grace_of))
    await service.started.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
    assert service.graces == [0.0]


def test_start_that_fails_is_a_line_and_an_exit_code(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService(StartupError("the port is taken"))
    assert run_to_exit_code(lambda: serve_until_signal(service, grace_of)) == EXIT_FAILURE
    assert service.graces == [0.0]
    assert "cannot start: the port is taken" in caplog.text
