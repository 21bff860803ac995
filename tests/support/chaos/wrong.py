"""Requests that must be refused, and each by the right status."""

import random
import struct
from collections.abc import Callable
from typing import Any

import grpc
from tests.support.chaos import right
from tests.support.chaos.world import MAX_MESSAGE_BYTES, OK, World, outcome
from tests.support.requests import identity_request, simple_request, tensor
from tritonclient.grpc import service_pb2 as wire

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INTERNAL = grpc.StatusCode.INTERNAL
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

Wrong = Callable[[random.Random], tuple[Any, set[grpc.StatusCode]]]

HUGE = [1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, -1, -(1 << 63)]


def wrong_tensor(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    name = rng.choice(["INPUT0", "INPUT9", "", "\0", "x" * 5000])
    datatype = rng.choice(["FP32", "BYTES", "INT128", ""])
    shape = [rng.choice([0, 1, 2, 16, *HUGE]) for _ in range(rng.randint(0, 9))]
    made = tensor(name, datatype, shape)
    raw = [rng.randbytes(rng.randint(0, 99)) for _ in range(rng.randint(0, 3))]
    return simple_request(inputs=[made] * rng.randint(1, 3), raw_input_contents=raw), {INVALID}


def wrong_name(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    name = rng.choice(["nobody", "", "../simple", "simple\0", "broken", "s" * 100_000])
    return simple_request(model_name=name), {NOT_FOUND, grpc.StatusCode.UNAVAILABLE}


def wrong_version(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    version = rng.choice(["99", "-1", "latest", "1.0", "9" * 40, " "])
    return simple_request(model_version=version), {NOT_FOUND, INVALID}


def too_many_rows(_rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    inputs = [tensor(name, "INT32", [9, 16]) for name in ("INPUT0", "INPUT1")]
    return simple_request(inputs=inputs, raw_input_contents=[bytes(576)] * 2), {INVALID}


def huge_claim(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    shape = [rng.choice([1, 4, *HUGE]), rng.choice(HUGE)]
    made = tensor("INPUT0", "FP32", shape)
    return identity_request([1.0], inputs=[made]), {INVALID}


def lying_words(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    """Lengths of BYTES elements that do not add up."""
    claim = rng.choice([1, 5, 1 << 16, (1 << 31) - 1, (1 << 32) - 1, (1 << 32) - 4])
    data = rng.choice([b"", b"\1", struct.pack("<I", claim), struct.pack("<I", claim) + b"abcd"])
    request = right.request_of("words", [tensor("INPUT0", "BYTES", [1, 2])], [data])
    return request, {INVALID}


def garbage(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    return rng.randbytes(rng.choice([1, 2, 10, 1000, 100_000])), {INVALID, NOT_FOUND}


def truncated(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    data = simple_request().SerializeToString()
    return data[: rng.randrange(len(data))], {INVALID, NOT_FOUND}


def flipped(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    """A flipped bit may be one of the values: then the request is a right one."""
    data = bytearray(simple_request().SerializeToString())
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data), {OK, INVALID, NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}


def oversize(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    return bytes(MAX_MESSAGE_BYTES + rng.choice([1, 100_000])), {EXHAUSTED}


def failing_model(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    model = rng.choice(["fails", "throws", "wrong_shape", "wrong_bytes"])
    return identity_request([1.0, 2.0], model=model), {INTERNAL}


def picky_model(rng: random.Random) -> tuple[Any, set[grpc.StatusCode]]:
    """A batch of three rows fails, whoever is in it; three rows with others are more."""
    rows = rng.randint(1, 3)
    made = tensor("INPUT0", "FP32", [rows, 1])
    request = identity_request([1.0], model="picky", inputs=[made])
    request.raw_input_contents[0] = bytes(4 * rows)
    return request, {OK, INTERNAL}


CASES: tuple[Wrong, ...] = (
    *(wrong_tensor, wrong_name, wrong_version, too_many_rows, huge_claim, lying_words),
    *(garbage, truncated, flipped, oversize, failing_model, picky_model),
)


async def ask_wrong(world: World, rng: random.Random) -> None:
    """A wrong request is refused by its status."""
    case = rng.choice(CASES)
    request, allowed = case(rng)
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    code, text = await outcome(world.client(rng).unary("ModelInfer", payload))
    assert code in allowed, f"{case.__name__}: {code} {text!r} to {payload[:200]!r}"
    world.count(case.__name__, code)


async def ask_wrong_control(world: World, rng: random.Random) -> None:
    """Garbage to every other RPC."""
    rpc = rng.choice(
        ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"]
    )
    payload = rng.choice(
        [b"\xff" * 9, b"\n\x80", wire.ModelMetadataRequest(name="no").SerializeToString()]
    )
    code, text = await outcome(world.client(rng).unary(rpc, payload))
    assert code in {OK, INVALID, NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}, (
        f"{rpc}: {code} {text!r}"
    )
    world.count("wrong control", code)


async def ask_bomb(world: World, rng: random.Random) -> None:
    """A small message that is over the limit once inflated."""
    payload = bytes(2 * MAX_MESSAGE_BYTES)
    compression = rng.choice([grpc.Compression.Gzip, grpc.Compression.Deflate])
    call = world.client(rng).unary("ModelInfer", payload, compression=compression)
    code, text = await outcome(call)
    assert code is EXHAUSTED, f"bomb: {code} {text!r}"
    world.count("bomb", code)
