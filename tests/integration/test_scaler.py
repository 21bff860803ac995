"""`penstock scaler` on the wire: KEDA on one side, replicas' metrics on the other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.certificates import Authority
from tests.support.fake_replica import FakeReplica, fake_replica
from tests.support.keda import Keda, keda_channel

from penstock.scaler import Scaler
from penstock.scaling.config import ScalerConfig

pytestmark = pytest.mark.any_transport

QUICK = {"interval_secs": 0.02, "replica_timeout_secs": 0.5, "grpc_port": 0, "window_secs": 5.0}


@asynccontextmanager
async def scaling(*replicas: FakeReplica, **settings: Any) -> AsyncIterator[Scaler]:
    addresses = tuple(each.address for each in replicas)
    scaler = Scaler(ScalerConfig(**{"replica": addresses, **QUICK, **settings}))
    try:
        await scaler.start()
        yield scaler
    finally:
        await scaler.stop()


async def until(scaler: Scaler, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            change = scaler.advisor.next_round()
            if holds():
                return
            await change.wait()


async def fails(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details() or ""


async def test_keda_gets_totals_of_the_fleet() -> None:
    quiet = {"success": 5.0, "instances": 2}
    async with (
        fake_replica(m={**quiet, "pending": 3, "running": 1}) as one,
        fake_replica(m={**quiet, "pending": 4}, other={"running": 9}) as two,
        scaling(one, two) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        depth = Keda(channel, modelName="m", metric="queue_depth", target="2.5")
        assert await depth.spec() == ("penstock-queue_depth", 3, 2.5)
        assert await depth.metric() == (7, 7.0)
        everything = Keda(channel, metric="concurrency", target="4")
        assert await everything.metric() == (17, 17.0)
        assert await Keda(channel, modelName="m", metric="rps", target="1").metric() == (0, 0.0)
        advice = Keda(channel, modelName="m")
        assert await advice.spec() == ("penstock-replicas", 1, 1.0)
        assert await advice.metric() == (2, 2.0)  # what it has not watched it does not take away


async def test_model_that_no_replica_has_is_not_found() -> None:
    async with (
        fake_replica(m={}) as one,
        scaling(one) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        keda = Keda(channel, modelName="nope")
        for call in (keda.metric(), keda.is_active(), keda.stream().read()):
            code, text = await fails(call)
            assert (code, text) == (
                grpc.StatusCode.NOT_FOUND,
                "none of 1 replicas has model 'nope'",
            )


async def test_trigger_that_means_nothing_is_refused_by_name() -> None:
    async with (
        fake_replica(m={}) as one,
        scaling(one) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        for metadata, fragment in (
            ({"metric": "queue"}, "metric: expected one of replicas, concurrency"),
            ({"metric": "rps"}, "target: expected a number above 0 for rps, got ''"),
            ({"target": "-1"}, "target: expected a number above 0"),
            ({"target": "nan"}, "got 'nan'"),
        ):
            code, text = await fails(Keda(channel, **metadata).spec())
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert fragment in text
        code, text = await fails(Keda(channel, modelName="m").metric("s0-else"))
        assert (code, text) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "metricName: expected 'penstock-replicas', got 's0-else'",
        )


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("silent", "no answer within 0.5 s"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP status 500"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is no HTTP"),
        (b"", "closed before the answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xff", "not UTF-8"),
    ],
)
async def test_fleet_that_does_not_answer_is_an_error_and_no_zero(
    fault: bytes | str, why: str
) -> None:
    async with fake_replica(m={}) as one:
        one.fault = fault
        async with scaling(one) as scaler, keda_channel(scaler.server.address) as channel:
            keda = Keda(channel, modelName="m")
            for call in (keda.metric(), keda.is_active()):
                code, text = await fails(call)
                assert code is grpc.StatusCode.UNAVAILABLE
                assert text.startswith("no replica answers") and why in text
            one.fault = ""
            await until(scaler, lambda: scaler.advisor.is_known)
            assert await keda.metric() == (1, 1.0)


@pytest.mark.parametrize("value", ["NaN", "-5", "+Inf", "many"])
async def test_replica_that_lies_counts_as_one_that_does_not_answer(value: str) -> None:
    async with fake_replica(m={"pending": 2}) as one, fake_replica(m={}) as liar:
        liar.extra = f'penstock_pending_requests{{model="m",version="2"}} {value}'
        async with scaling(one, liar) as scaler, keda_channel(scaler.server.address) as channel:
            assert await Keda(channel, metric="queue_depth", target="1").metric() == (2, 2.0)
            assert await Keda(channel, modelName="m").metric() == (2, 2.0)  # one is missing


async def test_replicas_that_stop_answering_turn_stale_and_then_an_error() -> None:
    async with (
        fake_replica(m={"pending": 2}) as one,
        scaling(one, stale_secs=0.1) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        keda = Keda(channel, metric="queue_depth", target="1")
        assert await keda.metric() == (2, 2.0)
        one.fault = b""
        await until(scaler, lambda: not scaler.advisor.is_known)
        assert (await fails(keda.metric()))[0] is grpc.StatusCode.UNAVAILABLE


async def test_stream_tells_of_every_change_and_ends_with_the_scaler() -> None:
    async with fake_replica(m={}) as one:
        async with scaling(one, idle_secs=0) as scaler:
            async with keda_channel(scaler.server.address) as channel:
                stream = Keda(channel, modelName="m").stream()
                assert not (await stream.read()).result
                one.models["m"] = {"pending": 1}
                assert (await stream.read()).result
                one.models["m"] = {}
                while (await stream.read()).result:
                    pass  # arrivals of the window
                await scaler.stop()
                code, text = await fails(stream.read())
                assert (code, text) == (grpc.StatusCode.UNAVAILABLE, "the scaler is stopping")


async def test_busy_fleet_is_told_to_grow_by_littles_law() -> None:
    async with (
        fake_replica(m={"success": 0}) as one,
        scaling(one, max_replicas=7) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        keda = Keda(channel, modelName="m")
        assert await keda.metric() == (1, 1.0)
        one.models["m"] = {"success": 1000, "busy_s": 1e6, "pending": 5000}
        await until(scaler, lambda: scaler.advisor._advice["m"].decision.replicas == 7)
        assert await keda.metric() == (7, 7.0)
        assert await keda.is_active()


async def test_name_without_addresses_is_a_fleet_of_none() -> None:
    async with (
        scaling(replica=("no-such-name.invalid:8002",), min_replicas=0) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        keda = Keda(channel, modelName="m")
        assert not await keda.is_active()
        assert await keda.metric() == (0, 0.0)


async def test_bytes_that_are_no_message_are_refused() -> None:
    async with (
        fake_replica(m={}) as one,
        scaling(one) as scaler,
        keda_channel(scaler.server.address) as channel,
    ):
        raw: Any = channel
        for rpc in ("IsActive", "GetMetricSpec", "GetMetrics"):
            call = raw.unary_unary(f"/externalscaler.ExternalScaler/{rpc}")
            code, text = await fails(call(b"\xff\xff"))
            assert (code, text) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{rpc}: the request is no message of its type",
            )
        specs = raw.unary_stream("/externalscaler.ExternalScaler/StreamMetricSpec")(b"")
        assert (await fails(specs.read()))[0] is grpc.StatusCode.UNIMPLEMENTED
        health = raw.unary_unary("/grpc.health.v1.Health/Check")
        assert await health(b"") == b"\x08\x01"  # SERVING


async def test_keda_may_be_asked_for_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("scaler"), authority.issue("keda")
    tls = {
        "grpc_use_ssl": True,
        "grpc_use_ssl_mutual": True,
        "grpc_server_cert": str(server.certificate),
        "grpc_server_key": str(server.key),
        "grpc_root_cert": str(authority.certificate),
    }
    root = authority.certificate.read_bytes()
    known = grpc.ssl_channel_credentials(
        root, client.key.read_bytes(), client.certificate.read_bytes()
    )
    async with fake_replica(m={}) as one, scaling(one, **tls) as scaler:
        async with grpc.aio.secure_channel(scaler.server.address, known) as channel:
            assert await Keda(channel, modelName="m").metric() == (1, 1.0)
        nobody = grpc.ssl_channel_credentials(root)
        async with grpc.aio.secure_channel(scaler.server.address, nobody) as channel:
            code, _ = await fails(Keda(channel, modelName="m").metric())
            assert code is grpc.StatusCode.UNAVAILABLE
