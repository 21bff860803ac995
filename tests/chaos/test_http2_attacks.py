"""What no honest client of HTTP/2 does, over raw sockets, to each transport.

Each attack must come to what its table says, while another connection's inferences go on being
answered rightly and the server's memory stays bounded.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from tests.support.access_files import key_entry, write_keys
from tests.support.certificates import Authority
from tests.support.fixture_models import write_identity, write_simple
from tests.support.http2_faults import FAULTS, MAX_MESSAGE_BYTES, Fault
from tests.support.http2_floods import FLOODS, Flood
from tests.support.http2_peer import peer_of
from tests.support.raw_grpc import RawClient, raw_client, secure_client
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
    tls: ssl.SSLContext | None = None
    credentials: grpc.ChannelCredentials | None = None

    @property
    def port(self) -> int:
        return int(self.server.grpc.rsplit(":", 1)[1])

    def client(self) -> AbstractAsyncContextManager[RawClient]:
        if self.credentials is None:
            return raw_client(self.server.grpc)
        return secure_client(self.server.grpc, self.credentials)

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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Target]:
    """The same over TLS, and with an access policy that asks each call who it is."""
    folder = tmp_path_factory.mktemp("guarded")
    write_simple(folder / "repository", config=MODEL)
    write_identity(folder / "repository", config=MODEL)
    authority = Authority(folder)
    pair = authority.issue("server")
    keys = write_keys(folder / "keys.json", key_entry("nobody", "key-of-nobody"))
    flags = ["--max-message-bytes", str(MAX_MESSAGE_BYTES), "--grpc-use-ssl=true"]
    flags += ["--grpc-server-cert", str(pair.certificate), "--grpc-server-key", str(pair.key)]
    flags += ["--api-keys-file", str(keys), "--unauthenticated-group", "inference"]
    flags += ["--connection-requests-per-second", "100000"]
    trust = ssl.create_default_context(cafile=str(authority.certificate))
    trust.set_alpn_protocols(["h2"])
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    with served(folder / "repository", *flags) as server:
        yield Target(server, transport, trust, credentials)
    assert not [line for line in server.log if "Traceback" in line]


@asynccontextmanager
async def bystander_of(target: Target) -> AsyncIterator[Bystander]:
    """Asks all the while; what goes wrong for it ends the test."""
    async with target.client() as client:
        bystander = Bystander(client, target)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(bystander.ask())
            await bystander.see(1)
            yield bystander
            asking.cancel()


async def check(target: Target, attack: Fault | Flood) -> None:
    expected = attack.expected_of(target.transport)
    async with bystander_of(target) as bystander, peer_of(target.port, target.tls) as peer:
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


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_over_tls_and_with_a_policy_ends_the_same(guarded: Target, name: str) -> None:
    await check(guarded, FAULTS[name])


@pytest.mark.parametrize("name", FLOODS)
async def test_flood_is_borne_or_ended_and_others_are_served(target: Target, name: str) -> None:
    await check(target, FLOODS[name])
