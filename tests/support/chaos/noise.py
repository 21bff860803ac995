"""Those who do not speak the protocol: garbage, port scans, slow writers, odd HTTP."""

import random

from tests.support import raw_http2 as http2
from tests.support.chaos.world import World

SIDES = ("gRPC", "HTTP", "metrics")

GET = b"GET /metrics HTTP/1.1\r\nHost: chaos\r\n\r\n"
ODD = (
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v2/health/ready HTTP/1.1\r\nHost: chaos\r\nContent-Length: 99999999999\r\n\r\nabc",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"\r\n" * 100,
    GET * 20,
)


async def scan(world: World, rng: random.Random) -> None:
    """Connects and leaves, with or without manners."""
    for side in SIDES:
        async with http2.connection(world.port(side)) as peer:
            if rng.random() < 0.5:
                peer.reset()
    world.tally["scan"] += 1


async def babble(world: World, rng: random.Random) -> None:
    """Random bytes, TLS's first ones, HTTP/2 frames that make no sense."""
    senseless = b"".join(
        http2.frame(rng.randrange(12), rng.randrange(256), rng.randrange(9), rng.randbytes(9))
        for _ in range(20)
    )
    sent = rng.choice(
        [
            rng.randbytes(rng.choice([1, 50, 100_000])),
            b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + rng.randbytes(200),
            http2.PREFACE + senseless,
            http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) * 1000,
            http2.PREFACE + http2.frame(http2.PING, 0, 0, bytes(8)) * 1000,
        ]
    )
    async with http2.connection(world.port(rng.choice(SIDES))) as peer:
        await peer.send(sent)
        await peer.receive(0.05)
        if rng.random() < 0.5:
            peer.reset()
    world.tally["babble"] += 1


async def dawdle(world: World, rng: random.Random) -> None:
    """A byte now and then: a request that never ends, and then is left."""
    side = rng.choice(SIDES)
    text = http2.PREFACE + http2.headers(1) if side == "gRPC" else GET
    async with http2.connection(world.port(side)) as peer:
        for at in range(rng.randrange(1, len(text))):
            if not await peer.send(text[at : at + 1]):
                break
            await peer.receive(0.001)
    world.tally["dawdle"] += 1


async def odd_http(world: World, rng: random.Random) -> None:
    """HTTP that is nearly right."""
    async with http2.connection(world.port(rng.choice(["HTTP", "metrics"]))) as peer:
        await peer.send(rng.choice(ODD))
        await peer.receive(0.1)
        if rng.random() < 0.3:
            peer.reset()
    world.tally["odd http"] += 1
