"""One server from its command line to its exit code: signals, successors, and who is told."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import NoReturn

from penstock.app import App, apply_log_settings, log_settings
from penstock.config import ServerConfig
from penstock.frontend.grpcio import GrpcioTransport
from penstock.frontend.listeners import Inherited
from penstock.handover import Successor, announce_ready, refusal
from penstock.lifecycle import EXIT_FAILURE, StopSignals, run_to_exit_code, serve_until
from penstock.notify import ServiceManager
from penstock.observe.log import set_up_logging

__all__ = ["EXIT_FAILURE", "run"]

_log = logging.getLogger("penstock.app")


def run(config: ServerConfig) -> int:
    """Serves until SIGTERM or SIGINT, or until a successor took over; what `penstock serve` does.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE when the server could not start.
    """
    set_up_logging(log_settings(config))
    apply_log_settings(log_settings(config))
    return run_to_exit_code(lambda: _serve(config))


async def _serve(config: ServerConfig) -> None:
    inherited = Inherited.take(os.environ)
    app = App(inherited.applied_to(config), inherited)
    manager = ServiceManager(os.environ)

    async def until_over(ending: asyncio.Task[signal.Signals]) -> float:
        manager.tell(f"MAINPID={os.getpid()}", "READY=1", "STATUS=serving")
        manager.watch()
        announce_ready(inherited.predecessor)
        try:
            return await handover.until_over(ending)
        finally:
            manager.close()

    def after(is_clean: object) -> None:
        if not is_clean:
            _end_by_force()

    with StopSignals() as signals, _Handover(app, manager) as handover:
        await serve_until(app, signals, until_over, after)


class _Handover:
    """Hands over to a successor as often as SIGUSR2 asks for it, until one is ready.

    Threading: confined to the event loop of the main thread.
    """

    def __init__(self, app: App, manager: ServiceManager) -> None:
        self._app = app
        self._manager = manager
        self._asked = asyncio.Event()

    def __enter__(self) -> _Handover:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._asked.set)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # for what is left of this process

    async def until_over(self, ending: asyncio.Task[signal.Signals]) -> float:
        """Serves until a signal asks for the end or a successor is ready; the grace time then."""
        config = self._app.config
        while True:
            asked = asyncio.create_task(self._asked.wait())
            await asyncio.wait({ending, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not ending.done() and await self._is_followed(ending):
                return config.shutdown_grace_secs
            if ending.done():
                number = ending.result()
                self._manager.tell("STOPPING=1", f"STATUS=draining after {number.name}")
                _log.info("%s: draining", number.name)
                return config.shutdown_grace_secs if number == signal.SIGTERM else 0.0
            self._asked.clear()

    async def _is_followed(self, ending: asyncio.Task[signal.Signals]) -> bool:
        """As `_hand_over`; a defect of it is a successor that failed: what is healthy serves on."""
        try:
            return await self._hand_over(ending)
        except Exception:
            _log.exception("SIGUSR2: the handover failed")
            return False

    async def _hand_over(self, ending: asyncio.Task[signal.Signals]) -> bool:
        """Whether a successor is ready; False also when the end is asked for meanwhile."""
        transport = "grpcio" if isinstance(self._app.grpc, GrpcioTransport) else "native"
        unlike_start = self._app.models.unlike_start(self._app.config.load_model)
        if reason := refusal(self._app.config, transport, unlike_start):
            _log.error("SIGUSR2: no successor is started: %s", reason)
            return False
        try:
            successor = Successor(self._app.listeners())
        except OSError as error:
            _log.error("SIGUSR2: no successor can be started: %s", error)
            return False
        _log.info("SIGUSR2: process %d is to take over", successor.pid)
        ready = asyncio.create_task(successor.is_ready())
        await asyncio.wait({ending, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            await asyncio.wait({ready})
            successor.dismiss()
            return False
        if ready.exception() is not None:  # it would serve on beside this one
            successor.dismiss()
        if ready.result():
            _log.info("process %d has taken over: draining", successor.pid)
            self._app.hand_over()
        return ready.result()


def _end_by_force() -> NoReturn:
    """A thread is stuck in a model or a driver, and the interpreter would wait for it."""
    sys.stderr.flush()
    os._exit(EXIT_FAILURE)
