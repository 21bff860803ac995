"""The replicas of a fleet: who is ready, who has least to do, and what may be asked twice.

A request goes to the ready replica with the fewest calls under way. It is sent again, elsewhere,
only where that is safe: no connection was made, or the server refused it unrun because it drains.
While no replica can be reached (a fleet that is scaled from zero) requests wait, bounded in number,
bytes and time; over a bound the answer is UNAVAILABLE at once.

A sequence stays at one replica. Where that cannot be reached, first steps go to another one, and
later ones, whose state is lost or away, are UNAVAILABLE at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from penstock_gateway._messages import pb
from penstock_gateway.upstream import PUSHBACK, Call, Code, UpstreamError

__all__ = ["Pool", "PoolOptions", "Replica"]

_log = logging.getLogger(__name__)

_DRAINING = "GRPC server is shutting down"
"""How Penstock's words begin, and Triton's; a model's own may hold as much."""
_MAX_MOVED = 65536
"""Sequences that are remembered to be elsewhere than at their first replica."""
_ANSWERED = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
_RESTRICTED = "This protocol is restricted"
_PUSHBACK_MS = "1000"


class Channel(Protocol):
    """What of `GrpcUpstream` the pool needs."""

    async def unary(self, call: Call, request: bytes, *, timeout_s: float | None = None) -> bytes:
        """One message for one; raises UpstreamError."""

    def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """The answers to one message of a stream."""

    async def close(self) -> None:
        """Cancels what is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How the pool watches and waits.

    Attributes:
        probe_interval_s: between two questions to a replica whether it is ready.
        probe_timeout_s: for the answer.
        max_waiting: requests that wait for a replica to come up.
        max_waiting_bytes: of all of them together.
        wait_timeout_s: for which one of them waits.
        max_attempts: how often a request is sent, the first time included.
    """

    probe_interval_s: float = 1.0
    probe_timeout_s: float = 2.0
    max_waiting: int = 1000
    max_waiting_bytes: int = 256 << 20
    wait_timeout_s: float = 30.0
    max_attempts: int = 3


@dataclass(eq=False)
class Replica:
    """A server and what is known of it.

    Attributes:
        address: where it is, for messages of the log.
        channel: to it.
        outstanding: calls under way.
        is_reachable: it answered the last time.
        is_ready: it said so.
        was_ready: since it can be reached; without that it is still starting.
    """

    address: str
    channel: Channel
    outstanding: int = 0
    is_reachable: bool = False
    is_ready: bool = False
    was_ready: bool = False
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_usable(self) -> bool:
        """It takes requests, or says better than the gateway why it does not."""
        return self.is_ready or (self.is_reachable and self.was_ready)


class Pool:
    """See the module.

    Threading: confined to the event loop.
    Ownership: the channels and a task per replica.
    Lifecycle: start -> calls -> stop.

    Attributes:
        replicas: the servers.
        waiting: requests that wait for one.
        waiting_bytes: of them.
        retries: how often a request was sent again.
        refused: requests that were not let wait, or waited in vain, by the bound that was met.
    """

    def __init__(self, replicas: Sequence[Replica], options: PoolOptions) -> None:
        self.replicas = list(replicas)
        self.waiting = 0
        self.waiting_bytes = 0
        self.retries = 0
        self.refused = dict.fromkeys(("count", "bytes", "time"), 0)
        self._options = options
        self._changed = asyncio.Event()
        self._watches: list[asyncio.Task[None]] = []
        self._is_withdrawn = False
        self._moved: OrderedDict[str, Replica] = OrderedDict()  # by affinity

    async def start(self) -> None:
        """Returns once every replica was asked."""
        self._watches = [asyncio.create_task(self._watch(each)) for each in self.replicas]
        await asyncio.gather(*(each.looked.wait() for each in self.replicas))

    def withdraw(self) -> None:
        """Readiness turns false; calls are made as before."""
        self._is_withdrawn = True

    async def stop(self) -> None:
        """Ends the watching and closes the channels."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(each.channel.close() for each in self.replicas))

    @property
    def is_ready(self) -> bool:
        """Some replica is."""
        return not self._is_withdrawn and any(each.is_ready for each in self.replicas)

    async def authorize(self, call: Call) -> None:
        """Nothing: the servers know, and are asked with the call."""

    async def unary(self, call: Call, request: bytes) -> bytes:
        """See `upstream.Upstream`. What changes a server goes to all that can be reached."""
        if call.changes_server:
            return await self._to_all(call, request)
        tried: set[Replica] = set()
        attempts = 0
        until_s = self._wait_until_s()
        while True:
            replica = await self._choose(call, len(request), tried, until_s)
            replica.outstanding += 1
            attempts += 1
            try:
                return await replica.channel.unary(call, request)
            except UpstreamError as error:
                self._note(replica, error)
                tried.add(replica)
                if not self._may_try_again(call, error, attempts):
                    raise
                self.retries += 1
            finally:
                replica.outstanding -= 1

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        """See `upstream.Upstream`. Once an answer has come it is never begun anew."""
        tried: set[Replica] = set()
        attempts = 0
        until_s = self._wait_until_s()
        has_answer = False
        while True:
            replica = await self._choose(call, len(request), tried, until_s)
            replica.outstanding += 1
            attempts += 1
            try:
                async with aclosing(replica.channel.stream(call, request)) as answers:
                    async for answer in answers:
                        has_answer = True
                        yield answer
                return
            except UpstreamError as error:
                self._note(replica, error)
                tried.add(replica)
                if has_answer or not self._may_try_again(call, error, attempts):
                    raise
                self.retries += 1
            finally:
                replica.outstanding -= 1

    async def _to_all(self, call: Call, request: bytes) -> bytes:
        """The answer of one; where one fails, its failure, though others may have done it."""
        reached = [each for each in self.replicas if each.is_reachable]
        if not reached:
            reached = [await self._choose(call, len(request), set(), self._wait_until_s())]
        outcomes = await asyncio.gather(
            *(each.channel.unary(call, request) for each in reached), return_exceptions=True
        )
        for replica, outcome in zip(reached, outcomes, strict=True):
            if isinstance(outcome, UpstreamError) and len(reached) > 1:
                _log.warning("%s failed on %s: %s", call.rpc, replica.address, outcome.message)
            if isinstance(outcome, BaseException):
                raise outcome
        answer = outcomes[0]
        assert isinstance(answer, bytes)
        return answer

    def _may_try_again(self, call: Call, error: UpstreamError, attempts: int) -> bool:
        if attempts >= self._options.max_attempts:
            return False
        if not error.was_sent:
            return True
        is_draining = error.code == Code.UNAVAILABLE and error.message.startswith(_DRAINING)
        has_other = any(each.is_ready for each in self.replicas)
        return is_draining and call.may_repeat and has_other

    def _note(self, replica: Replica, error: UpstreamError) -> None:
        """A replica that cannot be reached, or that goes, is left alone from now on."""
        if error.code != Code.UNAVAILABLE:
            return
        if not error.was_sent:
            self._set(replica, is_reachable=False, is_ready=False)
        elif error.message.startswith(_DRAINING):
            self._set(replica, is_reachable=True, is_ready=False)

    def _wait_until_s(self) -> float:
        return asyncio.get_running_loop().time() + self._options.wait_timeout_s

    async def _choose(
        self, call: Call, size_bytes: int, tried: set[Replica], until_s: float
    ) -> Replica:
        """The best replica now, or the first to come up."""
        if (found := self._best(call, tried)) is not None:
            return found
        options = self._options
        if self.waiting >= options.max_waiting:
            self.refused["count"] += 1
            raise _unavailable(f"{self.waiting} requests wait for a server already")
        if self.waiting_bytes + size_bytes > options.max_waiting_bytes:
            self.refused["bytes"] += 1
            raise _unavailable("the requests that wait for a server are as large as they may be")
        self.waiting += 1
        self.waiting_bytes += size_bytes
        try:
            async with asyncio.timeout_at(until_s):
                while (found := self._best(call, set())) is None:
                    await self._changed.wait()
            return found
        except TimeoutError:
            self.refused["time"] += 1
            waited = f"no server became ready within {options.wait_timeout_s:g} s"
            raise _unavailable(waited) from None
        finally:
            self.waiting -= 1
            self.waiting_bytes -= size_bytes

    def _best(self, call: Call, tried: set[Replica]) -> Replica | None:
        usable = [each for each in self.replicas if each.is_usable and each not in tried]
        if call.affinity and usable:
            return self._home(call, usable)
        return min(usable, key=lambda each: (not each.is_ready, each.outstanding), default=None)

    def _home(self, call: Call, usable: list[Replica]) -> Replica:
        """The replica of a sequence; UpstreamError where its state is out of reach."""
        weight = _weight_for(call.affinity)
        first = max(self.replicas, key=weight)
        if not call.starts_sequence:
            home = self._moved.get(call.affinity, first)
            if home not in usable:
                raise _unavailable("the server that has the state of the sequence is out of reach")
            return home
        home = max(usable, key=lambda each: (each.is_ready, weight(each)))
        self._moved.pop(call.affinity, None)
        if home is not first:
            self._moved[call.affinity] = home
            if len(self._moved) > _MAX_MOVED:
                self._moved.popitem(last=False)
        return home

    async def _watch(self, replica: Replica) -> None:
        while True:
            try:
                await self._probe(replica)
            except Exception:
                if replica.is_reachable or not replica.looked.is_set():
                    _log.exception("upstream %s does not speak the protocol", replica.address)
                self._set(replica, is_reachable=False, is_ready=False)
            finally:
                replica.looked.set()
            await asyncio.sleep(self._options.probe_interval_s)

    async def _probe(self, replica: Replica) -> None:
        request = pb.ServerReadyRequest().SerializeToString()
        try:
            answer = await replica.channel.unary(
                Call("ServerReady"), request, timeout_s=self._options.probe_timeout_s
            )
        except UpstreamError as error:
            # It wants to know who asks before it says how it is: it is there.
            is_there = error.code in _ANSWERED or error.message.startswith(_RESTRICTED)
            self._set(replica, is_reachable=is_there, is_ready=is_there)
        else:
            is_ready = pb.ServerReadyResponse.FromString(answer).ready
            self._set(replica, is_reachable=True, is_ready=is_ready)

    def _set(self, replica: Replica, *, is_reachable: bool, is_ready: bool) -> None:
        before = (replica.is_reachable, replica.is_ready)
        replica.is_reachable, replica.is_ready = is_reachable, is_ready
        replica.was_ready = is_reachable and (is_ready or replica.was_ready)
        if before == (is_reachable, is_ready):
            return
        state = "ready" if is_ready else "not ready" if is_reachable else "down"
        _log.info("upstream %s is %s", replica.address, state)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _weight_for(affinity: str) -> Callable[[Replica], bytes]:
    """Rendezvous hashing: the same replica for the same value, whoever else comes or goes."""
    return lambda replica: hashlib.sha256(f"{affinity} {replica.address}".encode()).digest()


def _unavailable(message: str) -> UpstreamError:
    return UpstreamError(Code.UNAVAILABLE, message, {PUSHBACK: _PUSHBACK_MS}, was_sent=False)
