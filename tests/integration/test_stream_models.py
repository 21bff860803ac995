"""ModelStreamInfer of tritonclient against real models: order, failures, final flags."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fixture_models import write_model, write_simple
from tests.support.requests import simple_request, sums
from tests.support.run_server import run_server, server_config
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton
from tritonclient.grpc import service_pb2 as wire


async def replies(call: Any) -> list[Any]:
    return [wire.ModelStreamInferResponse.FromString(data) async for data in call]


def simple(number: int, **changes: Any) -> bytes:
    data: bytes = simple_request(id=str(number), **changes).SerializeToString()
    return data


async def test_hundreds_of_requests_are_answered_in_order_each_with_its_id(
    tmp_path: Path,
) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        found = await replies(client.stream([simple(number) for number in range(300)]))
    assert [reply.infer_response.id for reply in found] == [str(n) for n in range(300)]
    assert all(sums(reply.infer_response) == tuple(range(1, 17)) for reply in found)
    assert not any(reply.error_message for reply in found)


async def test_every_reply_is_marked_final(tmp_path: Path) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        (reply,) = await replies(client.stream([simple(1)]))
    assert reply.infer_response.parameters["triton_final_response"].bool_param is True


async def test_failure_is_one_reply_with_the_id_and_the_stream_goes_on(tmp_path: Path) -> None:
    write_simple(tmp_path)
    write_model(tmp_path, "failer", kind="fail", message="not today")
    bad = [simple(1, model_name="nobody"), simple(2, inputs=[], raw_input_contents=[]), b"\xff\xff"]
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        found = await replies(client.stream([simple(0), *bad, simple(4)]))
    first, unknown, lacking, garbage, last = found
    assert not first.error_message
    assert not last.error_message
    assert unknown.error_message == "Request for unknown model: 'nobody' is not found"
    assert unknown.infer_response.id == "1"
    assert "expected 2 inputs but got 0 inputs" in lacking.error_message
    assert garbage.error_message
    for reply in (unknown, lacking, garbage):
        assert not reply.infer_response.outputs


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (simple(1, model_name="nobody"), grpc.StatusCode.NOT_FOUND),
        (simple(1, inputs=[], raw_input_contents=[]), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_failure_ends_the_stream_with_its_status_when_asked(
    tmp_path: Path, request_: bytes, code: grpc.StatusCode
) -> None:
    write_simple(tmp_path)
    async with run_server(server_config(tmp_path)) as server, server.client() as client:
        metadata = (("triton_grpc_error", "true"),)
        # Nothing behind it: grpc.aio loses the status of a stream that it is still sending on.
        call = client.stream([simple(0), request_], metadata=metadata)
        found = []
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            async for data in call:
                found.append(data)
        assert len(found) == 1
        assert await call.code() == code


async def test_public_client_streams(tmp_path: Path) -> None:
    write_simple(tmp_path)

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            inputs = [InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
            for each in inputs:
                each.set_data_from_numpy(np.full((1, 16), number, np.int32))
            yield {"model_name": "simple", "inputs": inputs, "request_id": str(number)}

    async with run_server(server_config(tmp_path)) as server:
        async with triton.InferenceServerClient(server.grpc_address) as client:
            answers = [each async for each in client.stream_infer(requests())]
    for number, (result, error) in enumerate(answers):
        assert error is None
        assert result.get_response().id == str(number)
        assert result.as_numpy("OUTPUT0").tolist() == [[2 * number] * 16]
