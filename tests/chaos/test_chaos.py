"""Good, bad, abandoned and late requests at once; afterwards all is as it was.

The seed is printed. PENSTOCK_CHAOS_SEED=n repeats what each troublemaker does, though not when the
machine lets it do it.
"""

import asyncio
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.chaos import control, decoupled, gone, noise, right, shared, wrong
from tests.support.chaos.world import (
    MAX_MESSAGE_BYTES,
    SERVED,
    Actor,
    World,
    connected,
    write_repository,
)
from tests.support.run_server import ServerProcess, serve_process

WARM_UP_S = 5.0
STEP_S = 60.0
"""No single deed takes that long: what does hangs."""

RSS_GROWTH = 48 << 20
RSS_GROWTH_PER_SECOND = 1 << 18
"""How much the server may grow after the warm-up.

The first is for what malloc's arenas and gRPC's pools have not reached by then. The second is for
gRPC 1.81: of a call whose connection ends before the server has taken it, its C core keeps some
30 KB, in a bare echo too. Without broken connections the server stays within 6 MiB.
"""

TROUBLEMAKERS: dict[Actor, int] = {
    right.ask_right: 12,
    wrong.ask_wrong: 3,
    wrong.ask_wrong_control: 1,
    wrong.ask_bomb: 1,
    gone.ask_late: 2,
    gone.ask_impatient: 2,
    gone.flood: 1,
    gone.hang_up_channel: 1,
    gone.stream_mixed: 2,
    gone.stream_left: 2,
    gone.stream_first_failure_ends: 1,
    gone.frames: 2,
    decoupled.read_all: 2,
    decoupled.read_little: 2,
    shared.share: 3,
    noise.scan: 1,
    noise.babble: 1,
    noise.dawdle: 2,
    noise.odd_http: 1,
    control.reload: 1,
    control.move: 1,
    control.ask_moving: 1,
    control.load_broken: 1,
    control.look: 1,
    control.watch_health: 1,
    control.scrape: 1,
}
"""Who does it, and how many of them at a time."""

SUSPICIOUS = re.compile(
    r"Traceback|never retrieved|Exception|incident|was destroyed|AssertionError"
)


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    files: dict[str, str]
    threads: list[str]
    rss_bytes: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        process = Path(f"/proc/{pid}")
        files = {}
        for entry in (process / "fd").iterdir():
            try:
                files[entry.name] = os.readlink(entry)
            except FileNotFoundError:
                pass  # closed meanwhile
        threads = [(task / "comm").read_text().strip() for task in (process / "task").iterdir()]
        pages = int((process / "statm").read_text().split()[1])
        return cls(files, sorted(threads), pages * os.sysconf("SC_PAGE_SIZE"))

    def core_threads(self) -> list[str]:
        return [name for name in self.threads if name.startswith("ps-")]


async def wreak(world: World, seed: int, seconds: float) -> None:
    """Everybody at once, for so long; the first surprise ends it."""
    end = asyncio.get_running_loop().time() + seconds

    async def repeat(actor: Actor, number: int) -> None:
        rng = random.Random(f"{seed} {actor.__module__} {actor.__name__} {number}")
        while asyncio.get_running_loop().time() < end:
            async with asyncio.timeout(STEP_S):
                await actor(world, rng)

    async with asyncio.TaskGroup() as group:
        for actor, count in TROUBLEMAKERS.items():
            for number in range(count):
                group.create_task(repeat(actor, number), name=actor.__name__)


async def settle(world: World, files: int) -> control.Samples:
    """The metrics once nothing is in flight and no more files than `files` are open."""
    async with asyncio.timeout(STEP_S):
        while True:
            found = await control.samples(world.port("metrics"))
            is_busy = control.total(found, "penstock_inflight_requests")
            if not is_busy and len(Footprint.of(world.server.pid).files) <= files:
                return found


@asynccontextmanager
async def read_log(server: ServerProcess) -> AsyncIterator[None]:
    """Reads the server's log all the while: a full pipe would stop the server."""

    async def read() -> None:
        assert server.process.stderr is not None
        while line := await server.process.stderr.readline():
            server.lines.append(line.decode(errors="replace").rstrip("\n"))

    reading = asyncio.create_task(read())
    try:
        yield
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})


async def check_alive(world: World, rng: random.Random) -> None:
    """Healthy, and right about every kind of request."""
    async with world.passing_client() as client:
        check = health_pb2_grpc.HealthStub(client.channel).Check
        reply = await check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    for kind in right.KINDS:
        for _ in range(5):
            await right.ask_one(world, rng, kind)
    await wrong.ask_wrong(world, rng)
    await gone.stream_mixed(world, rng)


async def restore(world: World, rng: random.Random) -> None:
    """Loads what should serve as it is written, unloads what never could."""
    load, unload = "RepositoryModelLoad", "RepositoryModelUnload"
    for name in ("moving", "reloaded"):
        await control.change(world, rng, "restore", load, control.load_request(name))
    await control.change(world, rng, "restore", unload, control.unload_request("broken"))


def check_balance(found: control.Samples) -> None:
    """Every accepted request was completed once; nothing is pending or running."""
    accepted = control.total(found, "penstock_accepted_total")
    assert accepted == control.total(found, "penstock_completed_total")
    for name in ("penstock_pending_requests", "penstock_running_requests"):
        assert control.total(found, name) == 0, name


def check_everybody_came(world: World) -> None:
    """A chaos that lacks one of its kinds proves nothing."""
    for outcome in (
        *(f"right {kind}: OK" for kind in right.KINDS),
        *(f"{case.__name__}:" for case in wrong.CASES),
        *("late: DEADLINE_EXCEEDED", "impatient: UNAVAILABLE", "flood: CANCELLED", "flood: OK"),
        *("flood: UNAVAILABLE", "hang up: CANCELLED", "stream: right", "stream: wrong"),
        *("stream left", "stream: ended by failure", "frames", "scan", "babble", "dawdle"),
        *("odd http", "reload: OK", "wrong reload", "load: OK", "unload: OK", "moving: OK"),
        *(f"shared {deed.__name__}: " for deed in shared.DEEDS),
        *("load broken", "look", "watch", "scrape", "bomb", "wrong control"),
    ):
        assert any(each.startswith(outcome) for each in world.tally), outcome


def check_log(lines: list[str]) -> None:
    """Nothing in it would wake somebody; what does is shown with the lines around it."""
    found = [at for at, line in enumerate(lines) if SUSPICIOUS.search(line)]
    for at in found:
        print("\n".join(["---", *lines[max(0, at - 3) : at + 30]]))
    assert [lines[at] for at in found] == []


@pytest.mark.lengthy
@pytest.mark.parametrize("seconds", [20, pytest.param(240, marks=pytest.mark.slow)])
async def test_server_survives_chaos(tmp_path: Path, seconds: int) -> None:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 32)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    rng = random.Random(seed)
    digits = write_repository(tmp_path)
    flags = ["--model-control-mode", "explicit", "--max-message-bytes", str(MAX_MESSAGE_BYTES)]
    flags += ["--allow-client-shm=true"]
    flags += ["--shutdown-grace-secs", "0", *(f"--load-model={name}" for name in SERVED)]
    async with serve_process(tmp_path, *flags) as server, read_log(server):
        async with connected(server, digits) as world:
            await check_alive(world, rng)
            files = Footprint.of(server.pid).files
            await wreak(world, seed, WARM_UP_S)
            await restore(world, rng)
            await settle(world, len(files))
            before = Footprint.of(server.pid)
            await wreak(world, seed + 1, seconds)
            await restore(world, rng)
            check_balance(await settle(world, len(files)))
            await check_alive(world, rng)
            check_everybody_came(world)
            after = Footprint.of(server.pid)
            print(world.tally, files, before, after)
            assert after.core_threads() == before.core_threads()
            allowed = RSS_GROWTH + int(seconds * RSS_GROWTH_PER_SECOND)
            assert after.rss_bytes - before.rss_bytes < allowed
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() == 0
    check_log(server.lines)
