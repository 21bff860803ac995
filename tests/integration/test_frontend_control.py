"""The RPCs that do not infer, on the wire, with fakes behind the frontend."""

from base64 import b64encode
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.raw_grpc import raw_client
from tritonclient.grpc import aio as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from penstock import codec
from penstock.access_settings import GROUPS
from penstock.errors import InternalError, PermissionDeniedError, UnavailableError
from penstock.frontend.gate import RPC_GROUPS
from penstock.frontend.jobs import JOBS_GROUP


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serve_frontend() as started:
        yield started


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[triton.InferenceServerClient]:
    async with triton.InferenceServerClient(server.address) as connected:
        yield connected


async def call(server: FakeServer, rpc: str, request: bytes = b"") -> bytes:
    """A unary call of raw bytes."""
    async with raw_client(server.address) as client:
        reply: bytes = await client.unary(rpc, request)
        return reply


async def test_public_client_reads_liveness_readiness_and_metadata(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    server.readiness.withdraw()
    assert not await client.is_server_ready()
    assert await client.is_server_live()
    metadata = await client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("fake", "9")
    assert "statistics" in metadata.extensions


async def test_unready_models_make_the_server_unready(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    server.models.is_ready = False
    assert not await client.is_server_ready()


async def test_unknown_model_is_unready_and_not_an_error(
    client: triton.InferenceServerClient,
) -> None:
    assert await client.is_model_ready("m")
    assert not await client.is_model_ready("nobody")
    assert not await client.is_model_ready("m", "2")


async def test_model_metadata_config_statistics_and_index(
    client: triton.InferenceServerClient,
) -> None:
    assert (await client.get_model_metadata("m")).platform == "onnxruntime_onnx"
    assert (await client.get_model_config("m")).config.backend == "onnxruntime"
    assert not (await client.get_inference_statistics()).model_stats
    index = await client.get_model_repository_index()
    assert [(m.name, m.state) for m in index.models] == [("m", "READY")]


async def test_metadata_has_a_model_loaded_only_for_who_is_about_to_ask_it(
    server: FakeServer,
) -> None:
    request = service_pb2.ModelMetadataRequest(name="m", version="1").SerializeToString()
    async with raw_client(server.address) as client:
        await client.unary("ModelMetadata", request)
        assert server.models.calls == []
        wanted = (("penstock-load-on-demand", "true"),)
        await client.unary("ModelMetadata", request, metadata=wanted)
        assert server.models.calls == [("bring", "m", "1")]
        server.core.refusal = PermissionDeniedError("not you")
        server.core.refused_group = "inference"
        await client.unary("ModelMetadata", request)
        with pytest.raises(grpc.aio.AioRpcError, match="not you"):
            await client.unary("ModelMetadata", request, metadata=wanted)
        assert len(server.models.calls) == 1


async def test_load_and_unload_pass_their_parameters_on(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    await client.load_model("m", config='{"backend": "x"}')
    await client.unload_model("m", unload_dependents=True)
    assert server.models.calls == [
        ("load", "m", '{"backend": "x"}', (), ""),
        ("unload", "m", True, ""),
    ]


async def test_unknown_model_is_not_found(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'x' is not found") as caught:
        await client.get_model_metadata("x")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_shared_memory_is_handed_to_the_core(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    await client.register_system_shared_memory("r", "/k", 64, offset=8)
    await client.register_system_shared_memory("s", "/l", 1)
    assert server.core.registered["r"] == ("r", "/k", 8, 64)
    status = await client.get_system_shared_memory_status("r")
    assert (status.regions["r"].key, status.regions["r"].byte_size) == ("/k", 64)
    await client.unregister_system_shared_memory("r")
    assert list(server.core.registered) == ["s"]
    await client.unregister_system_shared_memory()
    assert not (await client.get_system_shared_memory_status()).regions


async def test_memory_of_gpus_is_handed_to_the_core(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    handle = bytes(range(64))
    await client.register_cuda_shared_memory("r", b64encode(handle), 1, 64)
    await client.register_cuda_shared_memory("s", b64encode(handle), 0, 8)
    assert server.core.handles == [handle, handle]
    regions = (await client.get_cuda_shared_memory_status()).regions
    assert (regions["r"].device_id, regions["r"].byte_size) == (1, 64)
    assert list((await client.get_cuda_shared_memory_status("s")).regions) == ["s"]
    await client.unregister_cuda_shared_memory("r")
    assert list(server.core.registered_on_gpus) == ["s"]
    await client.unregister_cuda_shared_memory()
    assert not (await client.get_cuda_shared_memory_status()).regions


@pytest.mark.parametrize("has_gpu", [False, True])
async def test_memory_of_gpus_is_advertised_where_there_are_some(has_gpu: bool) -> None:
    async with serve_frontend(allow_client_shm=True) as server:
        server.core.has_gpu = has_gpu
        async with triton.InferenceServerClient(server.address) as client:
            metadata = await client.get_server_metadata()
            assert ("cuda_shared_memory" in metadata.extensions) is has_gpu


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_shared_memory_is_advertised_where_it_is_allowed(is_allowed: bool) -> None:
    async with serve_frontend(allow_client_shm=is_allowed) as server:
        async with triton.InferenceServerClient(server.address) as client:
            metadata = await client.get_server_metadata()
            assert ("system_shared_memory" in metadata.extensions) is is_allowed


async def test_rpc_that_does_not_exist_is_unimplemented(server: FakeServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(server, "Nonsense")
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "rpc",
    [
        *("ServerLive", "ModelReady", "ModelConfig", "RepositoryIndex", "RepositoryModelLoad"),
        *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    ],
)
async def test_garbage_is_an_invalid_argument(server: FakeServer, rpc: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="is not a valid") as caught:
        await call(server, rpc, b"\xff\xff\xff")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_every_control_rpc_passes_admission(server: FakeServer) -> None:
    server.core.refusal = UnavailableError("full")
    unary = [m.name for m in codec.METHODS.values() if not m.name.endswith("Infer")]
    for rpc in unary:
        with pytest.raises(grpc.aio.AioRpcError, match="full") as caught:
            await call(server, rpc)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, rpc
    groups = [group for group, _ in server.core.admitted]
    assert groups == [RPC_GROUPS[rpc] for rpc in unary]


async def test_every_rpc_has_a_group_and_every_group_an_rpc() -> None:
    assert set(RPC_GROUPS) == set(codec.METHODS)
    assert {*RPC_GROUPS.values(), JOBS_GROUP} == set(GROUPS)


async def test_defect_is_internal_and_its_text_stays_in_the_log(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.models.failure = KeyError("secret detail")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(
            server, "ModelConfig", service_pb2.ModelConfigRequest(name="m").SerializeToString()
        )
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    details = caught.value.details() or ""
    assert "secret" not in details
    incident = details.rsplit(" ", 1)[1]
    assert incident in caplog.text
    assert "secret detail" in caplog.text


async def test_failed_load_says_why(
    server: FakeServer, client: triton.InferenceServerClient
) -> None:
    server.models.failure = InternalError("failed to load 'm': no file")
    with pytest.raises(InferenceServerException, match="failed to load 'm': no file"):
        await client.load_model("m")
