"""tritonclient's streams against decoupled models, sync and aio."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from tests.clients.test_tritonclient_stream import Replies
from tests.support.fixture_models import write_repeat, write_square
from tests.support.server_process import served
from tests.support.triton_clients import tensor
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    write_repeat(repository)
    write_square(repository)
    with served(repository) as server:
        yield server.grpc


def repeat_inputs(values: list[int], delays: list[int] | None = None) -> list[Any]:
    delays = [0] * len(values) if delays is None else delays
    return [
        tensor("IN", np.array(values, np.int32), "INT32"),
        tensor("DELAY", np.array(delays, np.uint32), "UINT32"),
        tensor("WAIT", np.zeros(1, np.uint32), "UINT32"),
    ]


def square_inputs(count: int) -> list[Any]:
    return [tensor("IN", np.array([count], np.int32), "INT32")]


def test_responses_and_the_final_one(url: str) -> None:
    replies = Replies()
    with InferenceServerClient(url) as client:
        client.start_stream(replies)
        client.async_stream_infer(
            "repeat_int32",
            repeat_inputs([7, 8, 9], [5, 0, 1]),
            request_id="r",
            enable_empty_final_response=True,
        )
        *found, (last, error) = replies.take(4)
        client.stop_stream()
    assert error is None
    for index, (result, failure) in enumerate(found):
        assert failure is None
        assert result.get_response().id == "r"
        assert result.as_numpy("OUT").tolist() == [7 + index]
        assert result.as_numpy("IDX").tolist() == [index]
        assert not result.get_response().parameters["triton_final_response"].bool_param
    assert last.get_response().parameters["triton_final_response"].bool_param
    assert not last.get_response().outputs


def test_stop_waits_for_every_response_of_every_request(url: str) -> None:
    replies = Replies()
    with InferenceServerClient(url) as client:
        client.start_stream(replies)
        for count in range(20):
            client.async_stream_infer("square_int32", square_inputs(count), request_id=str(count))
        client.stop_stream()
    found = replies.take(sum(range(20)))
    assert len(replies) == 0
    for result, error in found:
        assert error is None
        assert result.as_numpy("OUT").tolist() == [int(result.get_response().id)]


def test_cancelled_stream_says_so(url: str) -> None:
    replies = Replies()
    with InferenceServerClient(url) as client:
        client.start_stream(replies)
        client.async_stream_infer("repeat_int32", repeat_inputs([1, 2], [0, 3_600_000]))
        replies.take(1)
        client.stop_stream(cancel_requests=True)
        ((_, error),) = replies.take(1)
    assert error.status() == "StatusCode.CANCELLED"


def test_unary_inference_is_refused(url: str) -> None:
    with InferenceServerClient(url) as client:
        with pytest.raises(InferenceServerException, match="decoupled transaction policy") as error:
            client.infer("square_int32", square_inputs(1))
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"


def test_config_is_decoupled(url: str) -> None:
    with InferenceServerClient(url) as client:
        config = client.get_model_config("square_int32", as_json=True)["config"]
    assert config["model_transaction_policy"] == {"decoupled": True}


async def test_aio_stream(url: str) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for count in (3, 0, 2):
            yield {
                "model_name": "square_int32",
                "inputs": square_inputs(count),
                "request_id": str(count),
            }

    async with triton_aio.InferenceServerClient(url) as client:
        found = [reply async for reply in client.stream_infer(requests())]
    assert all(error is None for _, error in found)
    by_id: dict[str, list[bool]] = {}
    for result, _ in found:
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        by_id.setdefault(response.id, []).append(final)
    assert by_id == {"3": [False] * 3, "2": [False] * 2}
