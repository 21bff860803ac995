"""DeploymentListener: PostgreSQL tells of deployments at once, so that nobody waits for a look."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import psycopg
from sqlalchemy import URL

from penstock.store.deployments import CHANNEL

__all__ = ["DeploymentListener"]

_TURN_S = 1.0
"""How long a stop may take to be noticed."""
_RETRY_S = 5.0


class DeploymentListener:
    """Calls when something was deployed to an environment. Polling goes on beside it.

    A connection that breaks is made anew; what was told meanwhile is for the polls to find.

    Threading: `on_change` is called on a thread of its own. Lifecycle: start -> stop.
    """

    def __init__(self, url: URL, environment: str, on_change: Callable[[], None]) -> None:
        """Does nothing yet; the URL is of the database."""
        plain = url.set(drivername="postgresql")
        self._conninfo = plain.render_as_string(hide_password=False)
        self._environment = environment
        self._on_change = on_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listen", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listens no more; what is under way ends by itself."""
        self._stopping.set()

    def join(self, timeout_s: float) -> bool:
        """Blocking. Whether the thread has ended in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen_once()
            except psycopg.Error:  # told by the polls
                self._stopping.wait(_RETRY_S)

    def _listen_once(self) -> None:
        made = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=int(_RETRY_S))
        with closing(made) as connection:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            while not self._stopping.is_set():
                for told in connection.notifies(timeout=_TURN_S):
                    if told.payload == self._environment:
                        self._on_change()
                    if self._stopping.is_set():
                        return
