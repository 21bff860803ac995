"""What no honest client of HTTP/2 does, over raw sockets, to each transport.

Each attack must come to what its table says, while another connection's inferences go on being
answered rightly and the server's memory stays bounded.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.fixture_models import write_identity, write_simple
from tests.support.http2_faults import FAULTS, MAX_MESSAGE_BYTES, Fault
from tests.support.http2_floods import FLOODS, Flood
from tests.support.http2_peer import peer_of
from tests.support.raw_grpc import RawClient, raw_client
from tests.support.requests import simple_request, sums
from tests.support.server_process import Served, served
from tritonclient.grpc import service_pb2 as wire

PATIENCE_S = 60.0
ANSWERS = 5
"""How many inferences of others must be answered while an attack goes on, and after it."""

RSS_GROWTH = 192 << 20
"""How much the server may grow for one attack: those that hold whole messages may hold 100 MB."""

MODEL = "max_batch_size: 8\ndynamic_batching { }"


@dataclass(frozen=True)
class Target:
    """A server that others use, too."""

    server: Served
    transport: str

    @property
    def port(self) -> int:
        return int(self.server.grpc.rsplit(":", 1)[1])

    def rss_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.server.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Bystander:
    """Somebody else's inferences, one after the other, and the server's memory meanwhile."""

    client: RawClient
    target: Target
    answers: int = 0
    peak_bytes: int = 0
    _answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self) -> None:
        request = simple_request().SerializeToString()
        while True:
            reply = await self.client.unary("ModelInfer", request, timeout=PATIENCE_S)
            assert sums(wire.ModelInferResponse.FromString(reply)) == tuple(range(1, 17))
            self.answers += 1
            self.peak_bytes = max(self.peak_bytes, self.target.rss_bytes())
            self._answered.set()

    async def see(self, count: int) -> None:
        """Returns when so many more have been answered."""
        wanted = self.answers + count
        async with asyncio.timeout(PATIENCE_S):
            while self.answers < wanted:
                self._answered.clear()
                await self._answered.wait()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Target]:
    """A server for all attacks: what one of them leaves behind is the next one's trouble."""
    repository = tmp_path_factory.mktemp("repository")
    write_simple(repository, config=MODEL)
    write_identity(repository, config=MODEL)
    flags = ["--max-message-bytes", str(MAX_MESSAGE_BYTES)]
    with served(repository, *flags) as server:
        yield Target(server, transport)
    assert not [line for line in server.log if "Traceback" in line]


@asynccontextmanager
async def bystander_of(target: Target) -> AsyncIterator[Bystander]:
    """Asks all the while; what goes wrong for it ends the test."""
    async with raw_client(target.server.grpc) as client:
        bystander = Bystander(client, target)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(bystander.ask())
            await bystander.see(1)
            yield bystander
            asking.cancel()


async def check(target: Target, attack: Fault | Flood) -> None:
    expected = attack.expected_of(target.transport)
    async with bystander_of(target) as bystander, peer_of(target.port) as peer:
        before_bytes = target.rss_bytes()
        if isinstance(attack, Flood):
            await peer.greet()
            await attack.attack(peer)
        else:
            if not attack.bare:
                await peer.greet()
            await peer.send(attack.sent)
        await bystander.see(ANSWERS)
        findings = await peer.finding(expected)
        await bystander.see(ANSWERS)
        growth = bystander.peak_bytes - before_bytes
        print(f"{findings.outcome}: {findings}, the server grew by {growth >> 10} KiB")
        assert findings.outcome in expected, findings
        assert growth < RSS_GROWTH


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_ends_in_an_error_for_its_sender_alone(target: Target, name: str) -> None:
    await check(target, FAULTS[name])


@pytest.mark.parametrize("name", FLOODS)
async def test_flood_is_borne_or_ended_and_others_are_served(target: Target, name: str) -> None:
    await check(target, FLOODS[name])
