"""The life of the server: its states, the signals that end it, and the ladder down.

::

    STARTING ──> READY ──> DRAINING ──> STOPPED
        └────────────────────────────────^        a start that failed or was interrupted

The first SIGTERM or SIGINT asks for an orderly end; from then on both have the system's default
action, so that a second one ends the process at once, whatever the event loop is doing.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import uvloop

from penstock.errors import StartupError

__all__ = [
    "EXIT_FAILURE",
    "TRANSITIONS",
    "Lifecycle",
    "Service",
    "State",
    "StopSignals",
    "Stoppable",
    "pass_time",
    "run_to_exit_code",
    "serve_until",
    "serve_until_signal",
    "stop_in_order",
]

EXIT_FAILURE = 1

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TURN_S = 0.25  # calls that clients began before they heard are served
_REFUSE_S = 0.25  # gRPC cancels, without a reason, calls that it has received and not handed over
_JOIN_S = 1.0  # what models, then the core, get for ending idle threads when no time is left


class State(Enum):
    """Where the server is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.STARTING: frozenset({State.READY, State.STOPPED}),
        State.READY: frozenset({State.DRAINING}),
        State.DRAINING: frozenset({State.STOPPED}),
        State.STOPPED: frozenset(),
    }
)


class Lifecycle:
    """The state, and events to wait on.

    Threading: confined to the event loop.
    Lifecycle: TRANSITIONS; an illegal move is a RuntimeError.
    """

    def __init__(self) -> None:
        self._state = State.STARTING
        self._reached = {state: asyncio.Event() for state in State}
        self._reached[State.STARTING].set()

    @property
    def state(self) -> State:
        """Where it is."""
        return self._state

    def move(self, to: State) -> None:
        """Goes on to the next state."""
        if to not in TRANSITIONS[self._state]:
            raise RuntimeError(f"the server cannot go from {self._state.value} to {to.value}")
        self._state = to
        self._reached[to].set()

    async def reached(self, state: State) -> None:
        """Returns once the server is or was in the state."""
        await self._reached[state].wait()


class StopSignals:
    """Turns the first SIGTERM or SIGINT into an event; restores the handlers at the end.

    Threading: on the main thread, inside the running loop.
    """

    def __init__(self) -> None:
        self._arrived: asyncio.Future[signal.Signals] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        loop = asyncio.get_running_loop()
        self._arrived = loop.create_future()
        for number in _SIGNALS:
            self._before[number] = signal.getsignal(number)
            loop.add_signal_handler(number, self._handle, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    async def wait(self) -> signal.Signals:
        """The signal that asks for the end."""
        assert self._arrived is not None, "StopSignals is not entered"
        return await asyncio.shield(self._arrived)

    def _handle(self, number: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        assert self._arrived is not None
        if not self._arrived.done():
            self._arrived.set_result(number)


class Stoppable(Protocol):
    """What the ladder down calls, rung by rung. Every rung may be taken after a partial start."""

    def withdraw(self) -> None:
        """Readiness turns false; everything is served on."""

    def turn_away(self) -> None:
        """GOAWAY: clients make new calls elsewhere. What they have made is served."""

    def stop_accepting(self) -> None:
        """New inference is refused; streams are told to end."""

    async def stop_transport(self, timeout_s: float) -> None:
        """Let RPCs in flight finish, then cancel the rest."""

    async def stop_models(self, timeout_s: float) -> bool:
        """Models finish what they have; False if a load or a drain did not end in time."""

    async def stop_core(self, timeout_s: float) -> bool:
        """The core fails what is left, and threads are joined; False if one did not end in time."""

    async def stop_http(self) -> None:
        """Probes and metrics go last."""


async def stop_in_order(server: Stoppable, *, grace_s: float, timeout_s: float) -> bool:
    """Walks the ladder down.

    Args:
        server: what to stop.
        grace_s: how long to serve on with readiness false, so that balancers look elsewhere.
        timeout_s: how long requests in flight may take, and the models after them.

    Returns:
        Whether everything ended in time; if not, threads may still run.
    """
    loop = asyncio.get_running_loop()
    server.withdraw()
    if grace_s > 0:
        _log.info("not ready any more; serving on for %g s", grace_s)
        await pass_time(grace_s)
    deadline = loop.time() + timeout_s
    server.turn_away()
    await pass_time(min(_TURN_S, timeout_s / 4))
    server.stop_accepting()
    await pass_time(min(_REFUSE_S, max(0.0, deadline - loop.time())))
    await server.stop_transport(max(0.0, deadline - loop.time()))
    models_ended = await server.stop_models(max(_JOIN_S, deadline - loop.time()))
    if not models_ended:
        _log.error("the models did not stop in time; one is still being loaded or drained")
    core_ended = await server.stop_core(max(_JOIN_S, deadline - loop.time()))
    if not core_ended:
        _log.error("the core did not stop in time; a model still runs, or a driver is stuck")
    await server.stop_http()
    return models_ended and core_ended


async def pass_time(seconds: float) -> None:
    """Returns after the time."""
    passed = asyncio.get_running_loop().create_future()
    timer = asyncio.get_running_loop().call_later(seconds, passed.set_result, None)
    try:
        await passed
    finally:
        timer.cancel()


class Service(Protocol):
    """What `serve_until_signal` serves."""

    async def start(self) -> None:
        """Returns once it serves; StartupError where it cannot."""

    async def stop(self, grace_s: float = 0.0) -> object:
        """Also after a failed or interrupted start."""


def run_to_exit_code(serve: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs a process's life in a loop of its own.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE with a line in the log for a StartupError.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except StartupError as error:
        _log.error("cannot start: %s", error)
        return EXIT_FAILURE
    return 0


async def serve_until_signal(service: Service, grace_s: Callable[[signal.Signals], float]) -> None:
    """Starts it, waits for SIGTERM or SIGINT, stops it.

    Args:
        service: it.
        grace_s: how long to serve on with readiness false, by the signal.
    """

    async def until_asked(ending: asyncio.Task[signal.Signals]) -> float:
        number = await ending
        _log.info("%s: draining", number.name)
        return grace_s(number)

    with StopSignals() as signals:
        await serve_until(service, signals, until_asked)


async def serve_until(
    service: Service,
    signals: StopSignals,
    until_over: Callable[[asyncio.Task[signal.Signals]], Awaitable[float]],
    after: Callable[[object], None] = lambda _outcome: None,
) -> None:
    """Starts a service, serves until it is over, and stops it; a signal ends a start, too.

    What the start has made stays: see `spare_the_collector`.

    Args:
        service: it.
        signals: entered.
        until_over: called once it serves, with what a signal will end; returns the grace time.
        after: called with what `stop` returned.

    Raises:
        StartupError: it could not start.
    """
    left_s = 0.0
    started = asyncio.create_task(service.start())
    ending = asyncio.create_task(signals.wait())
    try:
        await asyncio.wait({started, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            _log.info("interrupted while starting")
            started.cancel()
        elif started.exception() is None:
            spare_the_collector()
            left_s = await until_over(ending)
        await asyncio.gather(started, return_exceptions=True)
    finally:
        ending.cancel()
        after(await service.stop(left_s))
    if not started.cancelled():
        started.result()
    _log.info("stopped")


def spare_the_collector() -> None:
    """What is there by now the garbage collector never goes through again (gc.freeze).

    It took it 40 to 60 ms each time, about twice a second under load by HTTP, and every request
    waited.
    """
    gc.collect()
    gc.freeze()
