"""Generate and generate_stream: JSON members to tensors, responses to JSON and to events."""

from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from tests.support.asgi import AsgiReply, ask_asgi
from tests.support.fake_upstream import FakeUpstream, metadata, response
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import Options
from penstock_gateway.upstream import UpstreamError

EMPTY = wire.ModelStreamInferResponse()
FAILED = wire.ModelStreamInferResponse(error_message="it broke")


def upstream_of(*responses: Any, **shapes: tuple[str, list[int]]) -> FakeUpstream:
    inputs = shapes or {"X": ("INT32", [-1])}
    answers = {"ModelMetadata": metadata(**inputs), "ModelStreamInfer": list(responses)}
    return FakeUpstream(answers)


async def ask(upstream: FakeUpstream, route: str, body: object) -> AsgiReply:
    path = f"/v2/models/m/{route}"
    return await ask_asgi(Gateway(upstream, Options()), "POST", path, orjson.dumps(body))


def events(reply: AsgiReply) -> list[Any]:
    parts = reply.body.decode().split("\n\n")
    assert parts.pop() == ""
    return [orjson.loads(part.removeprefix("data: ")) for part in parts]


async def test_one_response_is_the_answer() -> None:
    upstream = upstream_of(response(Y=5, Z=[1, 2]), EMPTY)
    reply = await ask(upstream, "generate", {"X": 3, "id": "7", "temperature": 0.5})
    assert (reply.status, reply.json) == (
        200,
        {"model_name": "m", "model_version": "1", "Y": 5, "Z": [1, 2]},
    )
    sent = upstream.last
    assert (sent.id, list(sent.inputs[0].shape)) == ("7", [1])
    assert sent.parameters["temperature"].double_param == 0.5
    assert ("triton_grpc_error", "true") in upstream.calls[-1][0].metadata


@pytest.mark.parametrize("responses", [[], [EMPTY], [response(Y=1), response(Y=2)]])
async def test_generate_wants_exactly_one_response(responses: list[Any]) -> None:
    reply = await ask(upstream_of(*responses), "generate", {"X": 1})
    assert reply.status == 400
    assert reply.json["error"].startswith("generate expects model to produce exactly 1 response")


async def test_stream_is_an_event_for_each_response() -> None:
    upstream = upstream_of(response(Y=1), response(Y=2), EMPTY)
    reply = await ask(upstream, "generate_stream", {"X": [1, 2]})
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [each["Y"] for each in events(reply)] == [1, 2]


async def test_failure_after_the_first_event_is_an_event() -> None:
    for failure in (FAILED, UpstreamError(13, "it broke")):
        reply = await ask(upstream_of(response(Y=1), failure), "generate_stream", {"X": 1})
        assert reply.status == 200
        assert events(reply)[1] == {"error": "it broke"}


@pytest.mark.parametrize("route", ["generate", "generate_stream"])
async def test_failure_before_the_first_response_has_its_status(route: str) -> None:
    reply = await ask(upstream_of(UpstreamError(14, "full")), route, {"X": 1})
    assert (reply.status, reply.json) == (503, {"error": "full"})
    assert reply.headers["content-type"] == "application/json"


async def test_stream_without_a_response_is_empty() -> None:
    reply = await ask(upstream_of(), "generate_stream", {"X": 1})
    assert (reply.status, reply.body) == (200, b"")


async def test_members_of_parameters_count_as_if_they_were_outside() -> None:
    upstream = upstream_of(response(Y=1), X=("INT32", [1]), T=("BYTES", [-1, 1]))
    body = {"T": "hi", "parameters": {"X": 4, "seed": 1}}
    assert (await ask(upstream, "generate", body)).status == 200
    inputs = {each.name: list(each.shape) for each in upstream.last.inputs}
    assert inputs == {"X": [1], "T": [1, 1]}
    assert list(upstream.last.parameters) == ["seed"]


@pytest.mark.parametrize(
    ("shape", "value", "sent"),
    [
        ([-1, 16], [0] * 16, [1, 16]),
        ([-1, 2], [0] * 6, [3, 2]),
        ([-1, -1], [1, 2, 3], [1, 3]),
        ([-1, -1], [[1, 2], [3, 4]], [2, 2]),
        ([1], 5, [1]),
        ([-1], [], [0]),
    ],
)
async def test_shape_comes_from_the_model_and_the_count(
    shape: list[int], value: Any, sent: list[int]
) -> None:
    upstream = upstream_of(response(Y=1), X=("INT32", shape))
    assert (await ask(upstream, "generate", {"X": value})).status == 200
    assert list(upstream.last.inputs[0].shape) == sent


@pytest.mark.parametrize(
    "body",
    [{"X": "text"}, {"X": [1.5]}, {"X": None}, {"X": {}}, {"X": 1, "p": [1]}, {"X": 1, "id": 1}],
)
async def test_value_that_is_none_of_its_input_is_refused(body: Any) -> None:
    upstream = upstream_of(response(Y=1))
    assert (await ask(upstream, "generate", body)).status == 400
    assert [call.rpc for call, _ in upstream.calls] == ["ModelMetadata"]


async def test_stream_is_closed_when_two_responses_are_enough() -> None:
    closed = []

    class Watched(FakeUpstream):
        async def stream(self, call: Any, request: bytes) -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield response(Y=1).SerializeToString()
            finally:
                closed.append(call.rpc)

    upstream = Watched({"ModelMetadata": metadata(X=("INT32", [-1]))})
    assert (await ask(upstream, "generate", {"X": 1})).status == 400
    assert closed == ["ModelStreamInfer"]


async def test_step_of_a_sequence_goes_to_its_replica_as_one_of_infer() -> None:
    upstream = upstream_of(response(Y=1))
    upstream.answers["ModelInfer"] = wire.ModelInferResponse(model_name="m")
    step = {"sequence_id": 7, "sequence_start": True}
    await ask(upstream, "generate", {"X": 1, **step})
    await ask(upstream, "generate", {"X": 1, "parameters": {"sequence_id": 7}})
    await ask(upstream, "infer", {"inputs": [], "parameters": step})
    await ask(upstream, "generate", {"X": 1, "sequence_id": 0})
    found = [
        (call.affinity, call.starts_sequence, call.may_repeat)
        for call, _ in upstream.calls
        if call.rpc != "ModelMetadata"
    ]
    first, later, none = ("m/7", True, True), ("m/7", False, False), ("", False, True)
    assert found == [first, later, first, none]
