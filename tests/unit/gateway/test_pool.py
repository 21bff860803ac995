"""The pool over fake channels: who is asked, what is asked twice, and who waits."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.pool import Pool, PoolOptions, Replica
from penstock_gateway.upstream import Call, UpstreamError

READY = wire.ServerReadyResponse(ready=True).SerializeToString()
UNREADY = wire.ServerReadyResponse(ready=False).SerializeToString()
REFUSED = UpstreamError(14, "failed to connect to all addresses", was_sent=False)
DRAINING = UpstreamError(14, "GRPC server is shutting down and has stopped accepting new requests.")
RESET = UpstreamError(14, "Connection reset by peer")
INFER = Call("ModelInfer")


class FakeChannel:
    """A server: what it answers to a probe and to a call; an exception is raised."""

    def __init__(self, probe: Any = READY, answer: Any = b"done") -> None:
        self.probe = probe
        self.answer = answer
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.probed = asyncio.Event()
        self.is_closed = False

    async def unary(self, call: Call, request: bytes, *, timeout_s: float | None = None) -> bytes:
        if call.rpc == "ServerReady":
            self.probed.set()
            return self._outcome(self.probe)
        self.asked.append(call.rpc)
        await self.gate.wait()
        return self._outcome(self.answer)

    async def stream(self, call: Call, request: bytes) -> AsyncGenerator[bytes, None]:
        self.asked.append(call.rpc)
        for each in self.answer:
            yield self._outcome(each)

    async def close(self) -> None:
        self.is_closed = True

    def _outcome(self, outcome: Any) -> bytes:
        if isinstance(outcome, Exception):
            raise outcome
        return bytes(outcome)


class World:
    """A pool that is started, and stopped at the end."""

    def __init__(self, *channels: FakeChannel, **options: Any) -> None:
        self.channels = channels
        replicas = [Replica(f"r{at}:1", each) for at, each in enumerate(channels)]
        self.pool = Pool(replicas, PoolOptions(probe_interval_s=0.01, **options))

    async def __aenter__(self) -> Pool:
        await self.pool.start()
        return self.pool

    async def __aexit__(self, *_: object) -> None:
        await self.pool.stop()
        assert all(each.is_closed for each in self.channels)
        assert [each.outstanding for each in self.pool.replicas] == [0] * len(self.channels)
        assert (self.pool.waiting, self.pool.waiting_bytes) == (0, 0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            turn = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(turn.set_result, None)
            await turn


async def test_replica_with_the_least_to_do_is_asked() -> None:
    channels = [FakeChannel() for _ in range(3)]
    async with World(*channels) as pool:
        for each in channels:
            each.gate.clear()
        calls = [asyncio.create_task(pool.unary(INFER, b"")) for _ in range(7)]
        await until(lambda: sum(len(each.asked) for each in channels) == 7)
        assert sorted(len(each.asked) for each in channels) == [2, 2, 3]
        for each in channels:
            each.gate.set()
        assert await asyncio.gather(*calls) == [b"done"] * 7


async def test_replica_that_is_not_ready_is_left_alone() -> None:
    away, here = FakeChannel(UNREADY), FakeChannel()
    async with World(away, here) as pool:
        for _ in range(5):
            await pool.unary(INFER, b"")
        assert (away.asked, len(here.asked)) == ([], 5)
        assert pool.is_ready
        pool.withdraw()
        assert not pool.is_ready


async def test_refused_connection_goes_to_the_next_whatever_the_call() -> None:
    gone, here = FakeChannel(answer=REFUSED), FakeChannel()
    async with World(gone, here) as pool:
        call = Call("ModelInfer", may_repeat=False)
        assert await pool.unary(call, b"") == b"done"
        assert (len(gone.asked), len(here.asked)) == (1, 1)


@pytest.mark.parametrize(("may_repeat", "asked"), [(True, 1), (False, 0)])
async def test_draining_server_is_followed_by_another_where_that_is_safe(
    may_repeat: bool, asked: int
) -> None:
    draining, here = FakeChannel(answer=DRAINING), FakeChannel()
    async with World(draining, here) as pool:
        call = Call("ModelInfer", may_repeat=may_repeat)
        if may_repeat:
            assert await pool.unary(call, b"") == b"done"
        else:
            with pytest.raises(UpstreamError, match="shutting down"):
                await pool.unary(call, b"")
        assert (len(draining.asked), len(here.asked)) == (1, asked)


@pytest.mark.parametrize("failure", [RESET, UpstreamError(13, "broken"), UpstreamError(14, "full")])
async def test_request_that_may_have_run_is_never_sent_again(failure: UpstreamError) -> None:
    first, second = FakeChannel(answer=failure), FakeChannel(answer=failure)
    async with World(first, second) as pool:
        with pytest.raises(UpstreamError, match=failure.message):
            await pool.unary(INFER, b"")
        assert len(first.asked) + len(second.asked) == 1


async def test_attempts_are_limited() -> None:
    channels = [FakeChannel(answer=REFUSED) for _ in range(5)]
    async with World(*channels, max_attempts=3) as pool:
        with pytest.raises(UpstreamError, match="failed to connect"):
            await pool.unary(INFER, b"")
        assert sum(len(each.asked) for each in channels) == 3


async def test_requests_wait_for_the_first_server_to_come_up() -> None:
    channel = FakeChannel(REFUSED)
    async with World(channel) as pool:
        calls = [asyncio.create_task(pool.unary(INFER, b"xx")) for _ in range(5)]
        await until(lambda: pool.waiting == 5)
        assert pool.waiting_bytes == 10
        channel.probe = UNREADY  # it is there, and still loads
        channel.probed.clear()
        await channel.probed.wait()
        assert channel.asked == []
        channel.probe = READY
        assert await asyncio.gather(*calls) == [b"done"] * 5


async def test_waiting_is_bounded_in_number_and_bytes_and_time() -> None:
    async with World(
        FakeChannel(REFUSED), max_waiting=2, max_waiting_bytes=5, wait_timeout_s=0.2
    ) as pool:
        first = asyncio.create_task(pool.unary(INFER, b"xxx"))
        await until(lambda: pool.waiting == 1)
        with pytest.raises(UpstreamError, match="as large as they may be") as caught:
            await pool.unary(INFER, b"xxx")
        second = asyncio.create_task(pool.unary(INFER, b""))
        await until(lambda: pool.waiting == 2)
        with pytest.raises(UpstreamError, match="2 requests wait for a server already"):
            await pool.unary(INFER, b"")
        for waiting in (first, second):
            with pytest.raises(UpstreamError, match="no server became ready within 0.2 s"):
                await waiting
        assert (caught.value.code, caught.value.trailing) == (
            14,
            {"grpc-retry-pushback-ms": "1000"},
        )


async def test_client_that_leaves_the_queue_leaves_room() -> None:
    async with World(FakeChannel(REFUSED), max_waiting=1) as pool:
        waiting = asyncio.create_task(pool.unary(INFER, b"x"))
        await until(lambda: pool.waiting == 1)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert (pool.waiting, pool.waiting_bytes) == (0, 0)


async def test_server_that_was_ready_answers_for_itself() -> None:
    channel = FakeChannel(answer=UpstreamError(14, "'m' is not ready"))
    async with World(channel) as pool:
        channel.probe = UNREADY
        await until(lambda: not pool.is_ready)
        with pytest.raises(UpstreamError, match="'m' is not ready"):
            await pool.unary(INFER, b"")


@pytest.mark.parametrize(
    "probe",
    [
        UpstreamError(16, "who?"),
        UpstreamError(7, "no"),
        UpstreamError(14, "This protocol is restricted, expecting header 'h'"),
    ],
)
async def test_server_that_tells_strangers_nothing_is_there(probe: UpstreamError) -> None:
    async with World(FakeChannel(probe)) as pool:
        assert await pool.unary(INFER, b"") == b"done"


async def test_steps_of_a_sequence_go_to_one_replica() -> None:
    channels = [FakeChannel() for _ in range(4)]
    async with World(*channels) as pool:
        for number in range(3):
            for _ in range(5):
                await pool.unary(Call("ModelInfer", affinity=f"m/{number}"), b"")
        assert all(len(each.asked) % 5 == 0 for each in channels)
        assert sum(len(each.asked) for each in channels) == 15


async def test_change_goes_to_every_replica_and_one_failure_is_told() -> None:
    first, second, away = FakeChannel(), FakeChannel(), FakeChannel(REFUSED)
    call = Call("RepositoryModelLoad", may_repeat=False, changes_server=True)
    async with World(first, second, away) as pool:
        assert await pool.unary(call, b"") == b"done"
        assert (len(first.asked), len(second.asked), away.asked) == (1, 1, [])
        second.answer = UpstreamError(13, "failed to load")
        with pytest.raises(UpstreamError, match="failed to load"):
            await pool.unary(call, b"")


async def test_stream_is_begun_anew_only_before_its_first_answer() -> None:
    gone, here = FakeChannel(answer=[REFUSED]), FakeChannel(answer=[b"1", b"2"])
    async with World(gone, here) as pool:
        assert [each async for each in pool.stream(INFER, b"")] == [b"1", b"2"]
        here.answer = [b"1", REFUSED]
        found = []
        with pytest.raises(UpstreamError):
            async for each in pool.stream(INFER, b""):
                found.append(each)
        assert found == [b"1"]


async def home_of(pool: Pool, channels: tuple[FakeChannel, ...], name: str) -> FakeChannel:
    """The replica of a sequence, by asking it."""
    await pool.unary(step(name, starts=True), b"")
    (home,) = [each for each in channels if each.asked]
    home.asked.clear()
    return home


def step(name: str, *, starts: bool = False) -> Call:
    return Call("ModelInfer", may_repeat=starts, affinity=name, starts_sequence=starts)


async def test_new_sequence_goes_elsewhere_when_its_replica_is_down_and_stays_there() -> None:
    channels = tuple(FakeChannel() for _ in range(3))
    async with World(*channels) as pool:
        home = await home_of(pool, channels, "m/1")
        home.probe = REFUSED
        await until(lambda: sum(each.is_ready for each in pool.replicas) == 2)
        with pytest.raises(UpstreamError, match="state of the sequence is out of reach"):
            await pool.unary(step("m/1"), b"")
        await pool.unary(step("m/1", starts=True), b"")
        home.probe = READY
        await until(lambda: all(each.is_ready for each in pool.replicas))
        for _ in range(3):
            await pool.unary(step("m/1"), b"")
        assert sorted(len(each.asked) for each in channels) == [0, 0, 4]
        assert home.asked == []
        await pool.unary(step("m/1", starts=True), b"")  # a new life begins at home
        await pool.unary(step("m/1"), b"")
        assert len(home.asked) == 2


async def test_first_step_that_a_draining_replica_refuses_begins_elsewhere() -> None:
    channels = tuple(FakeChannel() for _ in range(3))
    async with World(*channels) as pool:
        home = await home_of(pool, channels, "m/1")
        home.answer = DRAINING
        assert await pool.unary(step("m/1", starts=True), b"") == b"done"
        assert await pool.unary(step("m/1"), b"") == b"done"
        assert sorted(len(each.asked) for each in channels) == [0, 1, 2]


async def test_sequence_waits_while_no_server_is_up() -> None:
    channel = FakeChannel(REFUSED)
    async with World(channel) as pool:
        waiting = asyncio.create_task(pool.unary(step("m/1"), b""))
        await until(lambda: pool.waiting == 1)
        channel.probe = READY
        assert await waiting == b"done"


async def test_probe_that_is_no_protocol_is_down_until_it_is_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = FakeChannel(b"\xff\xff")
    async with World(channel) as pool:
        assert not pool.is_ready
        channel.probed.clear()
        await channel.probed.wait()
        channel.probe = READY
        await until(lambda: pool.is_ready)
    told = [each for each in caplog.records if "does not speak" in each.getMessage()]
    assert len(told) == 1


async def test_words_of_a_model_are_no_drain() -> None:
    failure = UpstreamError(14, "my GRPC server is shutting down")
    first, second = FakeChannel(answer=failure), FakeChannel(answer=failure)
    async with World(first, second) as pool:
        with pytest.raises(UpstreamError, match="my GRPC server"):
            await pool.unary(INFER, b"")
        assert len(first.asked) + len(second.asked) == 1


async def test_attempts_at_one_replica_count_too() -> None:
    channel = FakeChannel(answer=REFUSED)
    async with World(channel, max_attempts=3) as pool:
        with pytest.raises(UpstreamError, match="failed to connect"):
            await pool.unary(INFER, b"")
        assert len(channel.asked) == 3
