"""Decoupled models on the wire: order, final flags, failures, cancellation, lost clients."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.decoupled_requests import HOUR_MS, is_final, numbers, repeat, square
from tests.support.fixture_models import write_repeat, write_simple, write_square
from tests.support.requests import simple_request
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    write_repeat(tmp_path)
    write_square(tmp_path)
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as started:
        yield started


async def replies(call: Any) -> list[Any]:
    return [wire.ModelStreamInferResponse.FromString(data) async for data in call]


async def counters(server: RunningServer, model: str) -> Any:
    async with server.client() as client:
        request = wire.ModelStatisticsRequest(name=model)
        data = await client.unary("ModelStatistics", request.SerializeToString())
    (stats,) = wire.ModelStatisticsResponse.FromString(data).model_stats
    return stats


async def until_idle(server: RunningServer) -> None:
    """Returns once nothing is in flight."""
    core = server.app.core
    assert core is not None
    async with asyncio.timeout(60):
        while core.engine.inflight():
            await core.run(core.engine.wait_idle, 1.0)


async def test_one_response_for_each_element_in_order(server: RunningServer) -> None:
    async with server.client() as client:
        found = await replies(client.stream([repeat([4, 2, 0, 1], [3, 1, 0, 2], id="7")]))
    assert [numbers(reply) for reply in found] == [(4, 0), (2, 1), (0, 2), (1, 3)]
    for reply in found:
        assert not reply.error_message
        assert reply.infer_response.id == "7"
        assert reply.infer_response.model_name == "repeat_int32"
        assert reply.infer_response.model_version == "1"
        assert not is_final(reply)


async def test_empty_final_response_comes_last_where_it_is_asked_for(server: RunningServer) -> None:
    async with server.client() as client:
        found = await replies(client.stream([repeat([5, 6], id="a", empty_final=True)]))
        (lone,) = await replies(client.stream([repeat([], id="b", empty_final=True)]))
        nothing = await replies(client.stream([repeat([]), square(0)]))
    assert [is_final(reply) for reply in found] == [False, False, True]
    for last, id_ in ((found[-1], "a"), (lone, "b")):
        assert is_final(last)
        assert last.infer_response.id == id_
        assert last.infer_response.model_name == "repeat_int32"
        assert last.infer_response.model_version == "1"
        assert len(last.infer_response.outputs) == 0
    assert nothing == []


async def test_requests_interleave_and_each_keeps_its_order(server: RunningServer) -> None:
    slow = repeat([0, 1, 2], [150, 0, 0], id="slow")
    async with server.client() as client:
        found = await replies(client.stream([slow, square(3, "quick"), square(2, "too")]))
    by_id: dict[str, list[tuple[int, ...]]] = {}
    for reply in found:
        by_id.setdefault(reply.infer_response.id, []).append(numbers(reply))
    assert by_id == {
        "slow": [(0, 0), (1, 1), (2, 2)],
        "quick": [(3,)] * 3,
        "too": [(2,)] * 2,
    }
    assert [reply.infer_response.id for reply in found][-3:] == ["slow"] * 3


async def test_thousands_of_responses_arrive_whole(server: RunningServer) -> None:
    values = list(range(5000))
    async with server.client() as client:
        found = await replies(client.stream([repeat(values), square(3000, "s")]))
    mine = [numbers(reply) for reply in found if not reply.infer_response.id]
    assert mine == [(value, value) for value in values]
    assert len(found) == 8000


async def test_ordinary_models_share_the_stream(server: RunningServer) -> None:
    simple = [simple_request(id=str(n)).SerializeToString() for n in range(4)]
    requests = [simple[0], square(2, "d"), simple[1], repeat([9], id="e"), simple[2], simple[3]]
    async with server.client() as client:
        found = await replies(client.stream(requests))
    ids = [reply.infer_response.id for reply in found]
    assert [each for each in ids if each.isdigit()] == ["0", "1", "2", "3"]
    assert sorted(each for each in ids if not each.isdigit()) == ["d", "d", "e"]
    finals = {reply.infer_response.id: is_final(reply) for reply in found}
    assert finals == {"0": True, "1": True, "2": True, "3": True, "d": False, "e": False}


async def test_failure_is_one_reply_and_the_stream_goes_on(server: RunningServer) -> None:
    wrong = repeat([1, 2], [0], id="w", empty_final=True)
    lost = repeat([1], id="l", model="nobody")
    async with server.client() as client:
        found = await replies(client.stream([wrong, lost, square(1, "s")]))
    by_id = {reply.infer_response.id: reply for reply in found}
    assert len(found) == 3
    assert "expected IN and DELAY of one shape, got 2 and 1" in by_id["w"].error_message
    assert is_final(by_id["w"])
    assert "'nobody' is not found" in by_id["l"].error_message
    assert numbers(by_id["s"]) == (1,)
    stats = await counters(server, "repeat_int32")
    assert stats.inference_stats.fail.count == 1
    assert stats.inference_stats.success.count == 0


async def test_failure_ends_a_stream_that_asks_for_statuses(server: RunningServer) -> None:
    async with server.client() as client:
        metadata = (("triton_grpc_error", "true"),)
        call = client.stream([repeat([1, 2], [0])], metadata=metadata)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await replies(call)
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    await until_idle(server)


async def test_unary_call_is_unimplemented(server: RunningServer) -> None:
    async with server.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.unary("ModelInfer", square(1))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    expected = "ModelInfer RPC doesn't support models with decoupled transaction policy"
    assert refused.value.details() == expected


async def test_configuration_says_so(server: RunningServer) -> None:
    async with server.client() as client:
        request = wire.ModelConfigRequest(name="repeat_int32").SerializeToString()
        data = await client.unary("ModelConfig", request)
    config = wire.ModelConfigResponse.FromString(data).config
    assert config.model_transaction_policy.decoupled is True


async def test_statistics_count_requests_when_they_end(server: RunningServer) -> None:
    async with server.client() as client:
        await replies(client.stream([square(5), square(0), square(7)]))
    stats = await counters(server, "square_int32")
    assert stats.inference_stats.success.count == 3
    assert stats.inference_stats.queue.count == 3
    assert stats.inference_stats.compute_infer.count == 3
    assert stats.inference_count == 3
    assert stats.execution_count == 3


async def test_client_that_cancels_ends_its_requests_at_once(server: RunningServer) -> None:
    async with server.client() as client:
        call = client.stream()
        for _ in range(3):
            await call.write(repeat([1, 2], [0, HOUR_MS]))
        for _ in range(3):
            await call.read()
        call.cancel()
        await until_idle(server)
        assert len(await replies(client.stream([square(2)]))) == 2
    stats = server.app.core.infer_stats()
    assert stats["completed"]["CANCELLED"] == 3


async def test_client_that_vanishes_leaves_nothing(server: RunningServer) -> None:
    for _ in range(10):
        async with server.client() as client:
            call = client.stream()
            await call.write(square(1_000_000))
            await call.read()
            del call  # while somebody holds it, grpc.aio holds the connection
    await until_idle(server)
    stats = server.app.core.infer_stats()
    assert stats["inflight"] == 0
    assert stats["accepted"] == sum(stats["completed"].values()) == 10


async def test_deadline_ends_the_stream_and_its_requests(server: RunningServer) -> None:
    async with server.client() as client:
        call = client.stream([repeat([1, 2], [0, HOUR_MS])], timeout=0.3)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await replies(call)
        assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until_idle(server)


async def test_client_that_does_not_read_stops_its_model_and_no_other(
    server: RunningServer,
) -> None:
    async with server.client() as hoarder, server.client() as client:
        call = hoarder.stream()
        await call.write(square(1_000_000))
        await call.read()
        for _ in range(5):
            assert len(await replies(client.stream([square(500)]))) == 500
        stats = await counters(server, "square_int32")
        assert stats.inference_stats.success.count == 5  # the hoarder's is not over
        call.cancel()
    await until_idle(server)


async def test_client_that_reads_at_last_gets_all(server: RunningServer) -> None:
    count = 5000
    async with server.client() as client:
        call = client.stream()
        await call.write(square(count))
        await call.done_writing()
        await client.unary("ServerLive")  # meanwhile the model runs as far as it can
        found = 0
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            found += 1
    assert found == count


async def test_shutdown_ends_what_goes_on(tmp_path: Path) -> None:
    write_repeat(tmp_path)
    config = server_config(tmp_path, shutdown_grace_secs=0, exit_timeout_secs=1)
    async with run_server(config) as server, server.client() as client:
        call = client.stream()
        await call.write(repeat([1, 2], [0, HOUR_MS]))
        first = wire.ModelStreamInferResponse.FromString(await call.read())
        assert numbers(first) == (1, 0)
        async with asyncio.timeout(60):
            await server.app.stop()


async def test_decoupled_is_refused_where_the_backend_cannot(tmp_path: Path) -> None:
    config = "max_batch_size: 8\nmodel_transaction_policy { decoupled: true }"
    write_simple(tmp_path, config=config)
    settings = server_config(tmp_path, exit_on_error=False)
    async with run_server(settings) as server, server.client() as client:
        data = await client.unary("RepositoryIndex", b"")
    (model,) = wire.RepositoryIndexResponse.FromString(data).models
    assert model.state == "UNAVAILABLE"
    assert "model_transaction_policy.decoupled is not supported by its backend" in model.reason
