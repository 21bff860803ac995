"""Right requests of every kind, each with the check of its own answer."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from tests.support.chaos.world import OK, World, outcome
from tests.support.requests import tensor
from tritonclient.grpc import service_pb2 as wire

_ids = count(1)


@dataclass(frozen=True)
class Right:
    """A request and the check that a response is its answer and nobody else's."""

    request: Any
    check: Callable[[Any], None]

    @property
    def payload(self) -> bytes:
        data: bytes = self.request.SerializeToString()
        return data


Kind = Callable[[World, random.Random], Right]


def request_of(model: str, inputs: list[Any], raw: list[bytes]) -> Any:
    return wire.ModelInferRequest(
        model_name=model, id=f"r{next(_ids)}", inputs=inputs, raw_input_contents=raw
    )


def _same(expected: list[bytes], shapes: list[list[int]], request: Any) -> Callable[[Any], None]:
    def check(response: Any) -> None:
        assert response.id == request.id
        assert response.model_name == request.model_name
        assert [list(output.shape) for output in response.outputs] == shapes
        assert list(response.raw_output_contents) == expected, f"another's answer to {request.id}"

    return check


def simple(_world: World, rng: random.Random, model: str = "simple", most_rows: int = 8) -> Right:
    rows = rng.randint(1, most_rows)
    left, right = (
        np.array([rng.randint(-(2**30), 2**30) for _ in range(rows * 16)], np.int32)
        for _ in range(2)
    )
    inputs = [tensor(name, "INT32", [rows, 16]) for name in ("INPUT0", "INPUT1")]
    if rng.random() < 0.3:  # typed contents instead of raw ones
        for each, values in zip(inputs, (left, right), strict=True):
            each.contents.int_contents.extend(values.tolist())
        request = request_of(model, inputs, [])
    else:
        request = request_of(model, inputs, [left.tobytes(), right.tobytes()])
    expected = [(left + right).tobytes(), (left - right).tobytes()]
    return Right(request, _same(expected, [[rows, 16]] * 2, request))


def reloaded(world: World, rng: random.Random) -> Right:
    """At most as many rows as the smallest override allows."""
    return simple(world, rng, "reloaded", most_rows=4)


def moving(world: World, rng: random.Random) -> Right:
    return simple(world, rng, "moving", most_rows=4)


def _identity(rng: random.Random, model: str, datatype: str, item_bytes: int) -> Right:
    rows, columns = rng.randint(1, 4), rng.choice([0, 1, 2, 3, 5, 8, 33, 1000])
    if rng.random() < 0.02:
        columns = 100_000
    data = rng.randbytes(rows * columns * item_bytes)  # NaNs of all kinds among them
    request = request_of(model, [tensor("INPUT0", datatype, [rows, columns])], [data])
    return Right(request, _same([data], [[rows, columns]], request))


def identity(_world: World, rng: random.Random) -> Right:
    return _identity(rng, "identity", "FP32", 4)


def halves(_world: World, rng: random.Random) -> Right:
    return _identity(rng, "halves", "FP16", 2)


def words(_world: World, rng: random.Random) -> Right:
    rows, columns = rng.randint(1, 4), rng.randint(1, 6)
    texts = [rng.randbytes(rng.choice([0, 1, 7, 300])) for _ in range(rows * columns)]
    data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    request = request_of("words", [tensor("INPUT0", "BYTES", [rows, columns])], [data])
    return Right(request, _same([data], [[rows, columns]], request))


def digits(world: World, rng: random.Random) -> Right:
    truth = world.digits
    rows = rng.sample(range(len(truth.images)), rng.randint(1, 8))
    images = truth.images[rows]
    request = request_of("digits", [tensor("X", "FP32", [len(rows), 64])], [images.tobytes()])

    def check(response: Any) -> None:
        assert response.id == request.id
        found = {
            output.name: np.frombuffer(
                raw, {"INT64": np.int64, "FP32": np.float32}[output.datatype]
            ).reshape(output.shape)
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        label, probabilities = found.values()
        assert np.array_equal(label, truth.labels[rows])
        assert np.allclose(probabilities, truth.probabilities[rows], atol=1e-5)

    return Right(request, check)


KINDS: dict[str, Kind] = {
    "simple": simple,
    "identity": identity,
    "halves": halves,
    "words": words,
    "digits": digits,
    "reloaded": reloaded,
}
"""Kinds whose every request must be answered, whatever else goes on."""


async def ask_right(world: World, rng: random.Random) -> None:
    """A right request gets its own right answer."""
    name = rng.choice(list(KINDS))
    await ask_one(world, rng, name)


async def ask_one(world: World, rng: random.Random, name: str) -> None:
    right = KINDS[name](world, rng)
    code, reply = await outcome(world.client(rng).unary("ModelInfer", right.payload))
    assert code is OK, f"a right request to {name} was lost: {code} {reply}"
    right.check(wire.ModelInferResponse.FromString(reply))
    world.count(f"right {name}", code)
