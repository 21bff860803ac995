"""Both clients over a mock transport: what is sent, when it is sent again, how a client ends."""

import math
from typing import Any

import numpy as np
import pytest
from tests.unit.client.kinds import KINDS, Clock, Kind, settle

from penstock_client import (
    AsyncClient,
    AsyncMockTransport,
    Call,
    Client,
    ClientClosedError,
    DeadlineExceededError,
    InternalError,
    MockTransport,
    RetryPolicy,
    TensorError,
    UnavailableError,
)
from penstock_client._messages import pb

X = np.array([[1.0, 2.0]], np.float32)


def echo(call: Call, request: Any) -> Any:
    """A model whose output `y` is its first input."""
    output = pb.ModelInferResponse.InferOutputTensor(
        name="y", datatype=request.inputs[0].datatype, shape=request.inputs[0].shape
    )
    return pb.ModelInferResponse(
        model_name=request.model_name,
        id=request.id,
        outputs=[output],
        raw_output_contents=request.raw_input_contents[:1],
    )


class Script:
    """Raises the given errors one after the other, then echoes; keeps the calls."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[Call] = []

    def __call__(self, call: Call, request: Any) -> Any:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)
        return echo(call, request)


def busy(**details: str) -> UnavailableError:
    return UnavailableError("Exceeds maximum queue size", details=details)


@pytest.mark.parametrize("kind", KINDS)
async def test_infer_takes_and_gives_arrays(kind: Kind) -> None:
    result = await settle(kind.client(echo).infer("m", {"x": X}, request_id="r1"))
    np.testing.assert_array_equal(result["y"], X)
    assert (result.model_name, result.id) == ("m", "r1")


@pytest.mark.parametrize("kind", KINDS)
async def test_call_carries_method_headers_and_default_timeout(kind: Kind) -> None:
    script = Script()
    client = kind.client(script, timeout_s=7.0, headers={"X-Team": "blue"})
    await settle(client.infer("m", {"x": X}))
    (call,) = script.calls
    assert call.method.path == "/inference.GRPCInferenceService/ModelInfer"
    assert call.timeout_s == 7.0
    assert call.headers == (("x-team", "blue"),)


@pytest.mark.parametrize("kind", KINDS)
async def test_deadline_of_a_call_wins_over_the_default(kind: Kind) -> None:
    script = Script()
    client = kind.client(script, timeout_s=7.0)
    await settle(client.infer("m", {"x": X}, deadline_s=2.0))
    await settle(client.infer("m", {"x": X}, deadline_s=math.inf))
    assert [call.timeout_s for call in script.calls] == [2.0, None]


@pytest.mark.parametrize("kind", KINDS)
async def test_default_timeout_is_a_minute(kind: Kind) -> None:
    script = Script()
    await settle(kind.client(script).infer("m", {"x": X}))
    assert script.calls[0].timeout_s == 60.0


@pytest.mark.parametrize("kind", KINDS)
async def test_unavailable_is_retried_with_backoff_until_it_works(kind: Kind) -> None:
    clock, script = Clock(), Script(busy(), busy())
    client = kind.client(script, clock=clock, chance=0.5, timeout_s=10.0)
    result = await settle(client.infer("m", {"x": X}))
    assert result["y"].tolist() == X.tolist()
    assert clock.waits == [0.05, 0.1]
    assert [call.timeout_s for call in script.calls] == pytest.approx([10.0, 9.95, 9.85])


@pytest.mark.parametrize("kind", KINDS)
async def test_server_pushback_sets_the_wait(kind: Kind) -> None:
    clock, script = Clock(), Script(busy(**{"grpc-retry-pushback-ms": "2500"}))
    await settle(kind.client(script, clock=clock).infer("m", {"x": X}))
    assert clock.waits == [2.5]


@pytest.mark.parametrize("kind", KINDS)
async def test_other_failures_are_raised_at_once_and_labelled(kind: Kind) -> None:
    clock, script = Clock(), Script(InternalError("boom"))
    with pytest.raises(InternalError, match="boom.*model 'm', request 'r'"):
        await settle(kind.client(script, clock=clock).infer("m", {"x": X}, request_id="r"))
    assert clock.waits == []
    assert len(script.calls) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_retries_end_with_the_last_failure_and_its_attempts(kind: Kind) -> None:
    script = Script(*[busy() for _ in range(9)])
    client = kind.client(script, retry=RetryPolicy(max_attempts=3))
    with pytest.raises(UnavailableError, match="3 attempts"):
        await settle(client.infer("m", {"x": X}))
    assert len(script.calls) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_retry_budget_is_shared_by_the_calls_of_a_client(kind: Kind) -> None:
    script = Script(*[busy() for _ in range(100)])
    client = kind.client(script, retry=RetryPolicy(max_attempts=2, budget_tokens=6.0))
    for _ in range(10):
        with pytest.raises(UnavailableError):
            await settle(client.infer("m", {"x": X}))
    assert len(script.calls) == 11  # only the first call finds more than 3 of 6 tokens


@pytest.mark.parametrize("kind", KINDS)
async def test_step_of_a_sequence_is_not_sent_twice(kind: Kind) -> None:
    script = Script(busy())
    with pytest.raises(UnavailableError):
        await settle(kind.client(script).infer("m", {"x": X}, parameters={"sequence_id": 5}))
    assert len(script.calls) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "arguments", "is_retried"),
    [
        ("server_live", (), False),
        ("server_ready", (), False),
        ("model_ready", ("m",), False),
        ("load_model", ("m",), False),
        ("unload_model", ("m",), False),
        ("server_metadata", (), True),
        ("model_metadata", ("m",), True),
        ("model_config", ("m",), True),
        ("statistics", (), True),
        ("repository_index", (), True),
    ],
)
async def test_only_calls_that_read_state_are_retried(
    kind: Kind, method: str, arguments: tuple[str, ...], is_retried: bool
) -> None:
    sends = 0

    def refuse(call: Call, request: Any) -> Any:
        nonlocal sends
        sends += 1
        raise busy()

    with pytest.raises(UnavailableError):
        await settle(getattr(kind.client(refuse), method)(*arguments))
    assert sends == (4 if is_retried else 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_deadline_already_past_sends_nothing(kind: Kind) -> None:
    script = Script()
    with pytest.raises(DeadlineExceededError, match="passed before sending"):
        await settle(kind.client(script).infer("m", {"x": X}, deadline_s=0.0))
    assert script.calls == []


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_input_is_refused_before_anything_is_sent(kind: Kind) -> None:
    script = Script()
    with pytest.raises(TensorError, match="input 'x' of model 'm'"):
        await settle(kind.client(script).infer("m", {"x": [1.0]}))
    assert script.calls == []


@pytest.mark.parametrize("kind", KINDS)
async def test_closed_client_refuses_calls_and_closes_once(kind: Kind) -> None:
    client = kind.client(echo)
    await settle(client.close())
    await settle(client.close())
    with pytest.raises(ClientClosedError, match=r"Client\('mock'\) is closed"):
        await settle(client.infer("m", {"x": X}))
    with pytest.raises(ClientClosedError):
        stream = client.stream([])
        await settle(anext(stream) if kind.is_async else next(stream))


async def test_context_managers_close_the_transport() -> None:
    transport = MockTransport(echo)
    with Client("mock", transport=transport) as client:
        assert repr(client) == "Client('mock')"
    assert transport.is_closed

    async def echo_async(call: Call, request: Any) -> Any:
        return echo(call, request)

    async_transport = AsyncMockTransport(echo_async)
    async with AsyncClient("mock", transport=async_transport) as async_client:
        assert repr(async_client) == "AsyncClient('mock')"
    assert async_transport.is_closed


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("url", ["http://localhost:8000", "grpc://localhost:8001", ""])
def test_url_that_is_no_grpc_target_is_refused(client: Any, url: str) -> None:
    with pytest.raises(ValueError, match="expected a gRPC target such as 'localhost:8001'"):
        client(url)


def test_async_client_can_be_made_outside_a_loop() -> None:
    assert repr(AsyncClient("localhost:1")) == "AsyncClient('localhost:1')"
