"""A model's message that is not UTF-8 cost every request that was completed in the same turn.

The text went to Python as it was; decoding it raised in the event loop's reader, and the outcomes
that had been taken with it were lost: their callers waited forever.
"""

from pathlib import Path

import grpc
import pytest
from tests.support.fixture_models import write_model, write_simple
from tests.support.requests import identity_request, simple_request, sums
from tests.support.run_server import run_server, server_config
from tritonclient.grpc import service_pb2 as wire

LATIN_1 = "caf\xe9".encode("latin-1")
BAD = identity_request([1.0], model="bad").SerializeToString()


def write_bad(repository: Path, name: str, kind: str) -> None:
    directory = write_model(repository, name, kind=kind, config="max_batch_size: 8")
    (directory / "1" / "model.txt").write_bytes(f"kind = {kind}\nmessage = ".encode() + LATIN_1)


async def test_failure_reaches_its_caller_and_nobody_elses_answer_is_lost(tmp_path: Path) -> None:
    write_bad(tmp_path, "bad", "fail")
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        bad = [client.unary("ModelInfer", BAD, timeout=10) for _ in range(20)]
        good = client.unary("ModelInfer", simple_request().SerializeToString(), timeout=10)
        for call in bad:
            with pytest.raises(grpc.aio.AioRpcError, match="caf\ufffd") as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert sums(wire.ModelInferResponse.FromString(await good)) == tuple(range(1, 17))
        assert server.app.core.infer_stats()["inflight"] == 0


async def test_failure_on_a_stream_is_a_message_that_clients_can_read(tmp_path: Path) -> None:
    write_bad(tmp_path, "bad", "fail")
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        (reply,) = [each async for each in client.stream([BAD], timeout=10)]
    assert "caf\ufffd" in wire.ModelStreamInferResponse.FromString(reply).error_message


async def test_load_that_fails_says_why(tmp_path: Path) -> None:
    write_bad(tmp_path, "bad", "fail_load")
    config = server_config(tmp_path, model_control_mode="explicit")
    async with run_server(config) as server, server.client() as client:
        request = wire.RepositoryModelLoadRequest(model_name="bad").SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError, match="caf\ufffd"):
            await client.unary("RepositoryModelLoad", request)
