"""Bad requests on the wire: the status, the text, and a server that goes on."""

import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.support.fixture_models import write_identity, write_model, write_simple
from tests.support.raw_grpc import RawClient, raw_client
from tests.support.requests import identity_request, int32_bytes, simple_request, sums, tensor
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2 as wire

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INTERNAL = grpc.StatusCode.INTERNAL

RAW = int32_bytes(*range(16))
TYPED = {"int_contents": range(16)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    tmp_path_factory: pytest.TempPathFactory, transport: str
) -> AsyncIterator[RunningServer]:
    repository = tmp_path_factory.mktemp("models")
    write_simple(repository)
    write_identity(repository)
    write_identity(repository, "text", datatype="BYTES")
    write_identity(repository, "flags", datatype="BOOL")
    write_model(repository, "thrower", kind="throw", message="torn apart")
    write_model(repository, "failer", kind="fail", message="not today")
    async with run_server(server_config(repository)) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: RunningServer) -> AsyncIterator[RawClient]:
    async with raw_client(server.grpc_address) as connected:
        yield connected


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def infer(client: RawClient, request: Any) -> Any:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return wire.ModelInferResponse.FromString(await client.unary("ModelInfer", data))


async def refusal(client: RawClient, request: Any) -> tuple[grpc.StatusCode, str]:
    """Status and text of a request that must fail, on a server that must go on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(client, request)
    assert sums(await infer(client, simple_request())) == tuple(range(1, 17))
    return caught.value.code(), caught.value.details() or ""


def inputs(*tensors: Any, raw: Any = None) -> dict[str, Any]:
    return {"inputs": tensors, "raw_input_contents": [RAW] * len(tensors) if raw is None else raw}


IN0 = tensor("INPUT0", "INT32", [1, 16])
IN1 = tensor("INPUT1", "INT32", [1, 16])


CASES: dict[str, tuple[dict[str, Any], grpc.StatusCode, str]] = {
    "unknown model": (
        {"model_name": "nobody"},
        NOT_FOUND,
        "Request for unknown model: 'nobody' is not found",
    ),
    "no model": ({"model_name": ""}, NOT_FOUND, "Request for unknown model: '' is not found"),
    "unknown version": (
        {"model_version": "99"},
        NOT_FOUND,
        "Request for unknown model: 'simple' version 99 is not found",
    ),
    "version that is no number": (
        {"model_version": "latest"},
        INVALID,
        "failed to get model version from specified version string 'latest'",
    ),
    "wrong datatype": (
        inputs(tensor("INPUT0", "FP32", [1, 16]), IN1),
        INVALID,
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    "datatype that does not exist": (
        inputs(tensor("INPUT0", "INT128", [1, 16]), IN1),
        INVALID,
        "INT128",
    ),
    "wrong shape": (
        inputs(tensor("INPUT0", "INT32", [1, 4, 4]), IN1),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,4,4]",
    ),
    "wrong row": (
        inputs(tensor("INPUT0", "INT32", [2, 8]), tensor("INPUT1", "INT32", [2, 8])),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [2,8]",
    ),
    "no batch dimension": (
        inputs(tensor("INPUT0", "INT32", [1]), IN1),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1]",
    ),
    "too few bytes": (
        inputs(IN0, IN1, raw=[RAW[:-1], RAW]),
        INVALID,
        "input byte size mismatch for input 'INPUT0'",
    ),
    "too many bytes": (
        inputs(IN0, IN1, raw=[RAW, RAW + b"\0"]),
        INVALID,
        "input byte size mismatch for input 'INPUT1'",
    ),
    "missing input": (
        inputs(IN0),
        INVALID,
        "expected 2 inputs but got 1 inputs for model 'simple'",
    ),
    "no input": (
        inputs(),
        INVALID,
        "expected 2 inputs but got 0 inputs for model 'simple'",
    ),
    "extra input": (
        inputs(IN0, IN1, tensor("INPUT2", "INT32", [1, 16])),
        INVALID,
        "unexpected inference input 'INPUT2' for model 'simple'",
    ),
    "input of another name": (inputs(IN0, tensor("X", "INT32", [1, 16])), INVALID, "'X'"),
    "duplicate input": (inputs(IN0, IN0), INVALID, "INPUT0"),
    "unknown output": (
        {"outputs": [wire.ModelInferRequest.InferRequestedOutputTensor(name="NOPE")]},
        INVALID,
        "NOPE",
    ),
    "raw and typed mixed": (
        inputs(tensor("INPUT0", "INT32", [1, 16], **TYPED), IN1, raw=[RAW]),
        INVALID,
        "INPUT0",
    ),
    "raw contents for some inputs only": (inputs(IN0, IN1, raw=[RAW]), INVALID, "raw"),
    "typed contents of the wrong type": (
        inputs(
            tensor("INPUT0", "INT32", [1, 16], fp32_contents=[1.0] * 16),
            tensor("INPUT1", "INT32", [1, 16], **TYPED),
            raw=[],
        ),
        INVALID,
        "INPUT0",
    ),
    "too few typed values": (
        inputs(
            tensor("INPUT0", "INT32", [1, 16], int_contents=[1]),
            tensor("INPUT1", "INT32", [1, 16], **TYPED),
            raw=[],
        ),
        INVALID,
        "INPUT0",
    ),
    "negative dimension": (
        inputs(tensor("INPUT0", "INT32", [-1, 16]), IN1),
        INVALID,
        "INPUT0",
    ),
    "dimensions that overflow": (
        inputs(tensor("INPUT0", "INT32", [2**62, 16]), IN1),
        INVALID,
        "INPUT0",
    ),
    "more rows than a batch holds": (
        inputs(
            tensor("INPUT0", "INT32", [9, 16]),
            tensor("INPUT1", "INT32", [9, 16]),
            raw=[RAW * 9, RAW * 9],
        ),
        INVALID,
        "inference request batch-size must be <= 8 for 'simple'",
    ),
    "inputs of unequal rows": (
        inputs(tensor("INPUT0", "INT32", [2, 16]), IN1, raw=[RAW * 2, RAW]),
        INVALID,
        "INPUT1",
    ),
    "shared memory": (
        inputs(
            wire.ModelInferRequest.InferInputTensor(
                name="INPUT0",
                datatype="INT32",
                shape=[1, 16],
                parameters={
                    "shared_memory_region": wire.InferParameter(string_param="r"),
                    "shared_memory_byte_size": wire.InferParameter(int64_param=64),
                },
            ),
            IN1,
            raw=[RAW],
        ),
        grpc.StatusCode.UNIMPLEMENTED,
        "Client shared memory is disabled. Start the server with '--allow-client-shm=true'",
    ),
    "reserved parameter": (
        {"parameters": {"triton_x": wire.InferParameter(bool_param=True)}},
        INVALID,
        "parameter keys starting with 'triton_' are reserved for Triton usage",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_bad_request_is_refused_with_its_reason(
    client: RawClient, case: tuple[dict[str, Any], grpc.StatusCode, str]
) -> None:
    changes, code, text = case
    found, details = await refusal(client, simple_request(**changes))
    assert found == code
    assert text in details


@pytest.mark.parametrize(
    "lie",
    [
        struct.pack("<I", 100) + b"short",
        struct.pack("<I", 2**32 - 1) + b"x",
        b"\1\0",
        struct.pack("<I", 1) + b"a" + b"rest",
        b"",
    ],
    ids=["longer than the rest", "4 GiB", "half a length", "leftover bytes", "nothing"],
)
async def test_bytes_with_lying_lengths_are_refused(client: RawClient, lie: bytes) -> None:
    request = identity_request(
        [], model="text", inputs=[tensor("INPUT0", "BYTES", [1, 1])], raw_input_contents=[lie]
    )
    code, text = await refusal(client, request)
    assert code == INVALID
    assert "INPUT0" in text


async def test_bool_that_is_neither_0_nor_1_is_refused(client: RawClient) -> None:
    def request(data: bytes) -> Any:
        tensors = [tensor("INPUT0", "BOOL", [1, 2])]
        return identity_request([], model="flags", inputs=tensors, raw_input_contents=[data])

    assert (await infer(client, request(b"\1\0"))).raw_output_contents[0] == b"\1\0"
    code, text = await refusal(client, request(b"\1\xff"))
    assert code == INVALID
    assert "input 'INPUT0' for model 'flags' has a BOOL element that is neither 0 nor 1" in text


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\n\x7f", bytes(range(1, 200)), b"\x0a\x05abc"])
async def test_garbage_is_refused(client: RawClient, data: bytes) -> None:
    assert (await refusal(client, data))[0] == INVALID


async def test_request_cut_anywhere_never_hurts_the_server(client: RawClient) -> None:
    whole = simple_request().SerializeToString()
    for length in range(len(whole)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(client, whole[:length])
        assert caught.value.code() in (INVALID, NOT_FOUND), length
    assert sums(await infer(client, whole)) == tuple(range(1, 17))


async def test_non_finite_values_pass_through(client: RawClient) -> None:
    values = [float("nan"), float("inf"), float("-inf"), -0.0]
    request = identity_request(values)
    response = await infer(client, request)
    assert response.raw_output_contents[0] == request.raw_input_contents[0]


async def test_zero_size_tensor_is_answered_with_an_empty_one(client: RawClient) -> None:
    response = await infer(client, identity_request([]))
    assert list(response.outputs[0].shape) == [1, 0]
    assert list(response.raw_output_contents) == [b""]


@pytest.mark.parametrize(
    ("model", "text"), [("thrower", "threw while running"), ("failer", "not today")]
)
async def test_model_that_fails_while_running_is_internal(
    client: RawClient, model: str, text: str
) -> None:
    request = identity_request([1.0], model=model)
    for _ in range(3):
        code, details = await refusal(client, request)
        assert code == INTERNAL
        assert text in details


async def test_id_is_echoed_and_the_version_told(client: RawClient) -> None:
    response = await infer(client, simple_request(id="any \u00e4 id"))
    assert (response.id, response.model_name, response.model_version) == (
        "any \u00e4 id",
        "simple",
        "1",
    )


async def test_parameters_of_the_c_client_are_accepted(client: RawClient) -> None:
    parameters = {
        "triton_enable_empty_final_response": wire.InferParameter(bool_param=False),
        "priority": wire.InferParameter(uint64_param=0),
        "timeout": wire.InferParameter(int64_param=10_000_000),
        "mine": wire.InferParameter(double_param=0.5),
    }
    assert sums(await infer(client, simple_request(parameters=parameters))) == tuple(range(1, 17))
