"""Whatever a body holds, the answer is a response or a clear refusal, and never a defect."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.asgi import ask_asgi
from tests.support.fake_upstream import FakeUpstream, echo, metadata, response
from tritonclient.grpc import service_pb2 as wire

from penstock_gateway.app import Gateway
from penstock_gateway.options import CloudRoutes, Options

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["X", "FP32", "BYTES", "BOOL", "INT64", "UINT8", "BF16", "triton_x", "config"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


def near(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with these members, each of which may be missing or anything."""
    return st.fixed_dictionaries(
        {}, optional={name: st.one_of(each, VALUES) for name, each in members.items()}
    )


NUMBERS = st.lists(st.one_of(st.integers(-300, 300), st.floats(-1e9, 1e9)), max_size=6)
PARAMETERS = near(
    binary_data_size=st.integers(-2, 20),
    binary_data=st.booleans(),
    classification=st.integers(),
    shared_memory_region=st.text(max_size=3),
    sequence_id=st.integers(),
)
TENSOR = near(
    name=st.just("X"),
    shape=st.lists(st.integers(-1, 5), max_size=3),
    datatype=st.sampled_from(["FP32", "INT8", "UINT64", "BYTES", "BOOL", "FP16"]),
    data=st.one_of(NUMBERS, st.lists(NUMBERS, max_size=3), st.lists(st.text(max_size=4))),
    parameters=PARAMETERS,
)
INFER = near(
    id=st.text(max_size=4),
    inputs=st.lists(TENSOR, max_size=3),
    outputs=st.lists(near(name=st.just("X"), parameters=PARAMETERS), max_size=2),
    parameters=near(binary_data_output=st.booleans(), priority=st.integers()),
    instances=st.lists(VALUES, max_size=3),
)
OTHER = near(
    X=NUMBERS,
    T=st.text(max_size=3),
    id=st.text(max_size=3),
    parameters=VALUES,
    ready=st.booleans(),
    key=st.text(max_size=3),
    byte_size=st.integers(),
    offset=st.integers(),
    raw_handle=near(b64=st.text(max_size=4)),
    device_id=st.integers(),
)
PATHS = [
    "/v2/models/m/generate",
    "/v2/models/m/generate_stream",
    "/v2/repository/index",
    "/v2/repository/models/m/load",
    "/v2/repository/models/m/unload",
    "/v2/systemsharedmemory/region/r/register",
    "/v2/cudasharedmemory/region/r/register",
    "/v2/logging",
    "/v2/trace/setting",
]


def gateway() -> Gateway:
    empty = {
        rpc: getattr(wire, f"{rpc}Response")()
        for rpc in (
            *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
            *("SystemSharedMemoryRegister", "CudaSharedMemoryRegister"),
            *("LogSettings", "TraceSetting"),
        )
    }
    inputs = metadata(X=("FP32", [-1, 2]), T=("BYTES", [1]))
    answers = {"ModelInfer": echo, "ModelMetadata": inputs, "ModelStreamInfer": [response(Y=1)]}
    upstream = FakeUpstream({**answers, **empty})
    return Gateway(upstream, Options(clouds=CloudRoutes(default_model="m")))


async def check(path: str, body: bytes, header_length: int | None = None) -> None:
    headers = []
    if header_length is not None:
        headers = [("inference-header-content-length", str(header_length))]
    reply = await ask_asgi(gateway(), "POST", path, body, headers)
    assert reply.status in (200, 400), (path, body, reply.body)
    if reply.status == 400:
        assert isinstance(reply.json["error"], str)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(document=INFER, tail=st.binary(max_size=24), path=st.sampled_from(["infer", "invocations"]))
async def test_any_inference(document: Any, tail: bytes, path: str) -> None:
    route = "/v2/models/m/infer" if path == "infer" else "/invocations"
    head = json.dumps(document).encode()
    await check(route, head + tail, len(head) if tail else None)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(document=OTHER, path=st.sampled_from(PATHS))
async def test_any_other_request(document: Any, path: str) -> None:
    await check(path, json.dumps(document).encode())


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(body=st.binary(max_size=40), length=st.one_of(st.none(), st.integers(0, 60)))
async def test_any_bytes(body: bytes, length: int | None) -> None:
    await check("/v2/models/m/infer", body, length)
