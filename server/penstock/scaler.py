"""`penstock scaler`: watches a fleet and answers KEDA, in a process without a core or a model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.access_settings import AccessSettings
from penstock.errors import StartupError
from penstock.frontend.addresses import is_loopback
from penstock.frontend.external_scaler import ExternalScaler, ScalerServer
from penstock.frontend.tls import server_credentials
from penstock.lifecycle import EXIT_FAILURE, pass_time, run_to_exit_code, serve_until_signal
from penstock.observe.log import LogSettings, set_up_logging
from penstock.scaling.advisor import Advisor
from penstock.scaling.config import ScalerConfig
from penstock.scaling.fleet import Fleet
from penstock.scaling.hooks import Change, HookRunner, plugin_hooks
from penstock.scaling.webhook import Webhook

__all__ = ["EXIT_FAILURE", "Scaler", "run"]

_STOP_S = 2.0
_REPEAT_S = 10.0
"""KEDA acts on true alone, and may have missed the one before."""

_log = logging.getLogger(__name__)


class Scaler:
    """The rounds and the service.

    Threading: confined to the event loop it was made on.
    Lifecycle: start -> stop; stop also after a failed or interrupted start.
    """

    def __init__(self, config: ScalerConfig) -> None:
        """Raises StartupError for a plug-in or a webhook that will not do."""
        self._config = config
        self._hooks = _make_hooks(config)
        self.advisor = Advisor(Fleet(config.fleet()), config.policy(), time.monotonic, self._tell)
        service = ExternalScaler(self.advisor, repeat_s=_REPEAT_S, clock=time.monotonic)
        self.server = ScalerServer(service, config.host, config.grpc_port)
        self._rounds: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns once it serves and has asked everybody once, whether or not anybody answers.

        Raises:
            StartupError: the port is taken, or the certificates will not do.
        """
        self.server.bind(_credentials(self._config))
        if not is_loopback(self._config.host) and not self._config.grpc_use_ssl:
            _log.warning("gRPC listens on %s, beyond loopback, without TLS", self.server.address)
        for hook in self._hooks:
            hook.start()
        await self._round()
        await self.server.start()
        self._rounds = asyncio.create_task(self._repeat())
        _log.info("scaler is ready: gRPC %s", self.server.address)

    async def stop(self, _grace_s: float = 0.0) -> None:
        """Ends streams, rounds and what hooks are about; nobody has to be given time."""
        await self.server.stop(_STOP_S)
        if self._rounds is not None:
            self._rounds.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rounds

        await asyncio.gather(*(hook.stop() for hook in self._hooks))

    def _tell(self, change: Change) -> None:
        for hook in self._hooks:
            hook.tell(change)

    async def _repeat(self) -> None:
        while True:
            await pass_time(self._config.interval_secs)
            await self._round()

    async def _round(self) -> None:
        """A defect ends one round, not all of them; nothing is known until one succeeds."""
        try:
            await self.advisor.round()
        except Exception:
            _log.exception("a round failed")


def run(config: ScalerConfig) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        Exit code: 0 after an orderly end, EXIT_FAILURE when it could not start.
    """
    set_up_logging(LogSettings.of(config.log_level, config.log_format))
    return run_to_exit_code(lambda: _serve(config))


async def _serve(config: ScalerConfig) -> None:
    await serve_until_signal(Scaler(config), lambda _number: 0.0)


def _make_hooks(config: ScalerConfig) -> list[HookRunner]:
    hooks = plugin_hooks(config.plugin)
    if config.webhook_url:
        path = Path(config.webhook_secret_file)
        try:
            secret = path.read_bytes().strip()
        except OSError as error:
            raise StartupError(f"cannot read {path}: {error.strerror}") from None
        timeout_s = config.webhook_timeout_secs
        hook = Webhook(config.webhook_url, secret, timeout_s=timeout_s, wall_clock=time.time)
        hooks.append(("webhook", hook))
    return [HookRunner(name, hook) for name, hook in hooks]


def _credentials(config: ScalerConfig) -> Any:
    if not config.grpc_use_ssl:
        return None
    names: Sequence[str] = ("use_ssl", "use_ssl_mutual", "server_cert", "server_key", "root_cert")
    values = {f"grpc_{name}": getattr(config, f"grpc_{name}") for name in names}
    return server_credentials(AccessSettings(**values))
