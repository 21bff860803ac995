"""tritonclient's streams, sync and aio: order, errors inside the stream, ends."""

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fixture_models import write_blocked, write_identity
from tests.support.models import onnx_files
from tests.support.server_process import served
from tests.support.triton_clients import simple_inputs, tensor
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException

PATIENCE_S = 60.0
SLOW = {"execute_delay_ms": "20"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple(), config="max_batch_size: 8")
    onnx_files.write_model(repository, "identity_bytes", onnx_files.identity("BYTES"))
    write_identity(repository, "slow", **SLOW)
    with served(repository) as server:
        yield server.grpc


class Replies:
    """A stream's callback and what it got."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self._queue.put((result, error))

    def take(self, count: int) -> list[tuple[Any, Any]]:
        """The next replies; waits for them."""
        return [self._queue.get(timeout=PATIENCE_S) for _ in range(count)]

    def __len__(self) -> int:
        return self._queue.qsize()


@pytest.fixture
def client(url: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(url) as connected:
        yield connected


def row() -> Any:
    return tensor("INPUT0", np.ones((1, 4), np.float32), "FP32")


def ids(replies: list[tuple[Any, Any]]) -> list[str]:
    assert [error for _, error in replies if error is not None] == []
    return [result.get_response().id for result, _ in replies]


def test_replies_come_in_the_order_of_the_requests(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    for number in range(200):
        client.async_stream_infer(
            "simple", simple_inputs(1 + number % 8, number), request_id=str(number)
        )
    client.stop_stream()
    assert len(replies) == 200
    found = replies.take(200)
    assert ids(found) == [str(number) for number in range(200)]
    for number, (result, _) in enumerate(found):
        assert result.as_numpy("OUTPUT0")[0, 0] == number + 1
        assert result.as_numpy("OUTPUT0").shape == (1 + number % 8, 16)


def test_order_holds_across_a_slow_and_a_fast_model(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    for number in range(10):
        if number % 2:
            client.async_stream_infer("simple", simple_inputs(), request_id=str(number))
        else:
            client.async_stream_infer("slow", [row()], request_id=str(number))
    assert ids(replies.take(10)) == [str(number) for number in range(10)]
    client.stop_stream()


def test_every_reply_is_final(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    for flag in (False, True):
        client.async_stream_infer("simple", simple_inputs(), enable_empty_final_response=flag)
    for result, error in replies.take(2):
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param is True
    client.stop_stream()


def test_options_of_a_request_hold_in_a_stream(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies, headers={"test": "1"}, compression_algorithm="gzip")
    client.async_stream_infer(
        "simple",
        simple_inputs(),
        model_version="1",
        outputs=[InferRequestedOutput("OUTPUT1")],
        priority=1,
        timeout=60_000_000,
        parameters={"text": "s"},
    )
    ((result, error),) = replies.take(1)
    client.stop_stream()
    assert error is None
    assert [each.name for each in result.get_response().outputs] == ["OUTPUT1"]


def test_bytes_in_a_stream(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    words = np.array([["gr\u00fc\u00dfe", "", "x"]], object)
    client.async_stream_infer("identity_bytes", [tensor("INPUT0", words, "BYTES")])
    ((result, _),) = replies.take(1)
    client.stop_stream()
    assert result.as_numpy("OUTPUT0").tolist() == [["gr\u00fc\u00dfe".encode(), b"", b"x"]]


def test_errors_stay_inside_the_stream_and_in_order(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    client.async_stream_infer("simple", simple_inputs(), request_id="0")
    client.async_stream_infer("nobody", simple_inputs())
    client.async_stream_infer("simple", simple_inputs(9))
    client.async_stream_infer("simple", simple_inputs(), model_version="99")
    client.async_stream_infer("simple", simple_inputs(), request_id="4")
    first, *errors, last = replies.take(5)
    client.stop_stream()
    assert ids([first, last]) == ["0", "4"]
    texts = [error.message() for _, error in errors]
    assert all(type(error) is InferenceServerException for _, error in errors)
    assert texts[0] == "Request for unknown model: 'nobody' is not found"
    assert "batch-size must be <= 8 for 'simple'" in texts[1]
    assert texts[2] == "Request for unknown model: 'simple' version 99 is not found"


def test_first_error_ends_a_stream_that_asks_for_statuses(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies, headers={"triton_grpc_error": "true"})
    client.async_stream_infer("simple", simple_inputs(), request_id="0")
    client.async_stream_infer("nobody", simple_inputs())
    first, (_, error) = replies.take(2)
    assert ids([first]) == ["0"]
    assert error.status() == "StatusCode.NOT_FOUND"
    assert error.message() == "Request for unknown model: 'nobody' is not found"
    client.stop_stream(cancel_requests=True)


def test_stop_waits_for_every_reply(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    for number in range(5):
        client.async_stream_infer("slow", [row()], request_id=str(number))
    client.stop_stream()
    assert len(replies) == 5


def test_another_stream_after_the_first(client: InferenceServerClient) -> None:
    for _ in range(3):
        replies = Replies()
        client.start_stream(replies)
        client.async_stream_infer("simple", simple_inputs(), request_id="a")
        client.stop_stream()
        assert ids(replies.take(1)) == ["a"]


def test_stream_without_a_request_ends_well(client: InferenceServerClient) -> None:
    replies = Replies()
    client.start_stream(replies)
    client.stop_stream()
    assert len(replies) == 0


def test_cancelled_stream_takes_its_requests_out_of_the_queue(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    with served(tmp_path / "models") as server, InferenceServerClient(server.grpc) as client:
        replies = Replies()
        client.start_stream(replies)
        for _ in range(3):
            client.async_stream_infer("blocked", [row()])
        client.stop_stream(cancel_requests=True)
        ((_, error),) = replies.take(1)
        assert error.status() == "StatusCode.CANCELLED"
        gate.touch()
        client.infer("blocked", [row()])
        (stats,) = client.get_inference_statistics("blocked").model_stats
        assert stats.inference_stats.success.count <= 2  # this one, and one that ran already


def test_stream_timeout_is_deadline_exceeded(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    with served(tmp_path / "models") as server, InferenceServerClient(server.grpc) as client:
        replies = Replies()
        client.start_stream(replies, stream_timeout=0.2)
        client.async_stream_infer("blocked", [row()])
        ((_, error),) = replies.take(1)
        assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
        client.stop_stream(cancel_requests=True)
        gate.touch()
        assert client.infer("blocked", [row()]).as_numpy("OUTPUT0").tolist() == [[1.0] * 4]


async def requests(count: int, **changes: Any) -> AsyncIterator[dict[str, Any]]:
    for number in range(count):
        inputs = simple_inputs(start=number)
        fields = {"model_name": "simple", "inputs": inputs, "request_id": str(number)}
        yield fields | changes.get(f"at_{number}", {})


async def test_aio_replies_come_in_order_with_errors_between(url: str) -> None:
    async with triton_aio.InferenceServerClient(url) as client:
        stream = client.stream_infer(requests(60, at_7={"model_name": "nobody"}))
        found = [reply async for reply in stream]
    assert len(found) == 60
    for number, (result, error) in enumerate(found):
        if number == 7:
            assert result is None
            assert error.message() == "Request for unknown model: 'nobody' is not found"
        else:
            assert error is None
            assert result.get_response().id == str(number)
            assert result.as_numpy("OUTPUT0")[0, 0] == number + 1


async def test_aio_conversation_waits_for_each_reply(url: str) -> None:
    async with triton_aio.InferenceServerClient(url) as client:
        turns: asyncio.Queue[int] = asyncio.Queue()

        async def talk() -> AsyncIterator[dict[str, Any]]:
            while (start := await turns.get()) >= 0:
                yield {"model_name": "simple", "inputs": simple_inputs(start=start)}

        turns.put_nowait(0)
        heard = []
        async for result, error in client.stream_infer(talk()):
            assert error is None
            heard.append(int(result.as_numpy("OUTPUT0")[0, 0]))
            turns.put_nowait(heard[-1] if len(heard) < 5 else -1)
    assert heard == [1, 2, 3, 4, 5]


async def test_aio_cancelled_stream_ends_and_the_server_serves_on(url: str) -> None:
    async with triton_aio.InferenceServerClient(url) as client:
        slow = {"model_name": "slow", "inputs": [row()]}
        stream = client.stream_infer(requests(20, **{f"at_{n}": slow for n in range(20)}))
        await anext(stream)
        assert stream.cancel()
        with pytest.raises((asyncio.CancelledError, InferenceServerException, grpc.RpcError)):
            while True:
                await anext(stream)
        result = await client.infer("simple", simple_inputs())
        assert result.as_numpy("OUTPUT0")[0, 0] == 1
