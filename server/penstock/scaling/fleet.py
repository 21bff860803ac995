"""The replicas of a fleet: who they are, what they said last, and who does not answer.

A replica is an address. A name with several addresses (a headless Service) is several replicas,
and is looked up anew in every round. One that was there and does not answer is missing: its load is
unknown, so nothing is taken away meanwhile. After `forget_s` without an answer it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from penstock.scaling.http_get import FetchError, Target, fetch
from penstock.scaling.reader_tls import ReaderTls
from penstock.scaling.reading import ReadingError, gateway_waiting, read_metrics
from penstock.scaling.signals import ModelSignals, ReplicaHistory, ReplicaSignals, combine

__all__ = ["Clock", "Fetch", "Fleet", "FleetOptions", "Resolve", "resolve"]

Fetch = Callable[[Target, str], Awaitable[str]]
"""Address and name; the text of its metrics. Raises FetchError."""

Clock = Callable[[], float]
"""Monotonic, s."""

Resolve = Callable[[str, int], Awaitable[list[Target]]]
"""The addresses of a name, none if it has none now. Raises FetchError."""

_MAX_AT_A_TIME = 64
_PATH = "/metrics"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """How to ask.

    Attributes:
        replicas: (host, port) of metrics; a host may be a name with many addresses.
        gateways: the same, of gateways, which hold requests while no replica is up.
        window_s: over which rates are taken.
        timeout_s: for one answer.
        stale_s: an answer older than this counts no more.
        forget_s: without an answer, until a replica is taken for gone.
        max_replicas: addresses that are asked.
        max_bytes: of an answer.
        tls: None = plain HTTP. A certificate must be for the host as it is configured.
    """

    replicas: tuple[Target, ...] = ()
    gateways: tuple[Target, ...] = ()
    window_s: float = 30.0
    timeout_s: float = 2.0
    stale_s: float = 10.0
    forget_s: float = 300.0
    max_replicas: int = 1000
    max_bytes: int = 16 << 20
    tls: ReaderTls | None = None


@dataclass(slots=True)
class _Peer:
    """One address."""

    history: ReplicaHistory
    first_s: float
    answered_s: float | None = None
    fault: str = ""
    waiting: float = 0.0

    @property
    def seen_s(self) -> float:
        """When it answered last, or was heard of first."""
        return self.first_s if self.answered_s is None else self.answered_s


@dataclass(slots=True)
class _Name:
    """One configured host."""

    fault: str = ""
    resolved_s: float | None = None
    members: list[Target] = field(default_factory=list)


class Fleet:
    """See the module.

    Threading: confined to the event loop.
    Ownership: the histories of replicas.
    """

    def __init__(
        self, options: FleetOptions, *, ask: Fetch | None = None, look_up: Resolve | None = None
    ) -> None:
        """`ask` and `look_up`: in place of HTTP and DNS."""
        self._options = options
        self._ask = ask or self._fetch
        self._look_up = look_up or resolve
        self._peers: dict[Target, _Peer] = {}
        self._gateways: dict[Target, _Peer] = {}
        self._names: dict[Target, _Name] = {}
        self._room = asyncio.Semaphore(_MAX_AT_A_TIME)

    async def ask(self, clock: Clock) -> None:
        """One round: looks names up, asks everybody; never longer than twice the timeout or so."""
        replicas = await self._members(self._options.replicas, clock())
        gateways = await self._members(self._options.gateways, clock())
        self._keep(self._peers, replicas, clock())
        self._keep(self._gateways, gateways, clock())

        def replica(peer: _Peer, text: str) -> None:
            peer.history.add(clock(), read_metrics(text))

        await asyncio.gather(
            *(self._read(*each, clock, replica) for each in self._peers.items()),
            *(self._read(*each, clock, _take_waiting) for each in self._gateways.items()),
        )

    def is_known(self, now_s: float) -> bool:
        """Whether anything can be said of the fleet: some replica answers, or there is none."""
        if self._fresh(now_s):
            return True
        return not self._peers and all(
            self._names.get(each, _Name()).resolved_s is not None and not self._names[each].fault
            for each in self._options.replicas
        )

    def faults(self) -> list[str]:
        """Why what does not answer does not."""
        names = [f"{host}: {each.fault}" for (host, _), each in self._names.items() if each.fault]
        peers = [f"{_text(t)}: {each.fault}" for t, each in self._peers.items() if each.fault]
        return names + peers

    def waiting(self, now_s: float) -> float:
        """Requests that gateways hold."""
        fresh = (each for each in self._gateways.values() if self._is_fresh(each, now_s))
        return sum(each.waiting for each in fresh)

    def counts(self, now_s: float) -> tuple[int, int]:
        """Replicas that answer, and those that do not."""
        fresh = len(self._fresh(now_s))
        seen = sum(
            now_s - each.seen_s <= self._options.forget_s or self._is_fresh(each, now_s)
            for each in self._peers.values()
        )
        return fresh, seen - fresh

    def signals(self, now_s: float) -> dict[str, ModelSignals]:
        """Of every model that a replica has."""
        found: dict[str, list[ReplicaSignals]] = {}
        for peer in self._fresh(now_s):
            for name, signals in peer.history.signals().items():
                found.setdefault(name, []).append(signals)
        missing, waiting = self.counts(now_s)[1], self.waiting(now_s)
        return {
            name: combine(name, found[name], missing=missing, waiting=waiting)
            for name in sorted(found)
        }

    def _fresh(self, now_s: float) -> list[_Peer]:
        return [each for each in self._peers.values() if self._is_fresh(each, now_s)]

    def _is_fresh(self, peer: _Peer, now_s: float) -> bool:
        return peer.answered_s is not None and now_s - peer.answered_s <= self._options.stale_s

    async def _members(self, names: Sequence[Target], now_s: float) -> list[Target]:
        found = await asyncio.gather(*(self._resolved(each, now_s) for each in names))
        members = list(dict.fromkeys(target for each in found for target in each))
        most = self._options.max_replicas
        if len(members) > most:
            _log.warning("only %d of %d addresses are asked", most, len(members))
        return members[:most]

    async def _resolved(self, name: Target, now_s: float) -> list[Target]:
        known = self._names.setdefault(name, _Name())
        try:
            async with asyncio.timeout(self._options.timeout_s):
                known.members = await self._look_up(*name)
            _tell(known, "", name[0])
            known.resolved_s = now_s
        except TimeoutError:
            _tell(known, f"no answer to its name within {self._options.timeout_s:g} s", name[0])
        except FetchError as error:
            _tell(known, str(error), name[0])
        return known.members

    def _keep(self, peers: dict[Target, _Peer], members: Sequence[Target], now_s: float) -> None:
        """Adds who is new, drops who has left its name and does not answer: it was stopped."""
        for target in members:
            if target not in peers:
                peers[target] = _Peer(ReplicaHistory(self._options.window_s), now_s)
        gone = [each for each, peer in peers.items() if each not in members and peer.fault]
        for target in gone:
            del peers[target]

    async def _read(
        self, target: Target, peer: _Peer, clock: Clock, take: Callable[[_Peer, str], None]
    ) -> None:
        try:
            async with self._room:
                text = await self._ask(target, _PATH)
            take(peer, text)
        except (FetchError, ReadingError) as error:
            _tell(peer, str(error), _text(target))
            return
        peer.answered_s = clock()
        _tell(peer, "", _text(target))

    async def _fetch(self, target: Target, path: str) -> str:
        options = self._options
        return await fetch(
            target,
            path,
            host=_text((self._host_of(target), target[1])),
            timeout_s=options.timeout_s,
            max_bytes=options.max_bytes,
            tls=None if options.tls is None else options.tls.context(),
        )

    def _host_of(self, target: Target) -> str:
        """The name that the address was found under."""
        found = (host for (host, _), each in self._names.items() if target in each.members)
        return next(found, target[0])


async def resolve(host: str, port: int) -> list[Target]:
    """The addresses of a name; none where the name system says that there is none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            return []
        raise FetchError(f"its name cannot be looked up: {error.strerror}") from None
    except (OSError, UnicodeError) as error:
        raise FetchError(f"its name cannot be looked up: {error}") from None
    return sorted({(str(each[4][0]), port) for each in found})


def _take_waiting(peer: _Peer, text: str) -> None:
    peer.waiting = gateway_waiting(text)


def _tell(known: _Peer | _Name, fault: str, who: str) -> None:
    """Remembers what is wrong with somebody; the log hears of changes only."""
    if fault and fault != known.fault:
        _log.warning("%s does not answer as it should: %s", who, fault)
    elif known.fault and not fault:
        _log.info("%s answers again", who)
    known.fault = fault


def _text(target: Target) -> str:
    host, port = target
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
