"""Who may call: restricted groups, API keys and rates, on the wire with the core behind it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.support.access_files import key_entry, write_keys, write_text
from tests.support.fixture_models import write_simple
from tests.support.http import ask
from tests.support.raw_grpc import RawClient
from tests.support.requests import simple_request
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import service_pb2

from penstock import codec
from penstock.access_settings import GROUPS
from penstock.errors import StartupError
from penstock.frontend.gate import RPC_GROUPS
from penstock_client import SharedMemory

ADMIN = (("triton-grpc-protocol-admin", "s3cret"),)
REQUEST = simple_request().SerializeToString()
TEXT = "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_simple(tmp_path / "models")
    return tmp_path / "models"


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """How the call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def trailing_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    pairs: Any = error.trailing_metadata() or ()
    return dict(pairs)


async def health(client: RawClient, **options: Any) -> Any:
    check = client.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return await check(health_pb2.HealthCheckRequest(), **options)


async def watch(client: RawClient, **options: Any) -> Any:
    call = client.channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)
    return await call(b"", **options).read()


def reflection(client: RawClient, questions: int | None = 1, **options: Any) -> Any:
    """A call with so many questions; None: it says nothing and stays open."""
    call = client.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    if questions is None:
        return call(**options)
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")] * questions
    return call(iter(requests), **options)


async def reflect(client: RawClient, **options: Any) -> Any:
    return await reflection(client, **options).read()


async def reflect_refused(client: RawClient, **options: Any) -> Any:
    """A stream that is refused at its start: grpc.aio loses the status if it is still sending."""
    return await reflection(client, None, **options).read()


async def stream(client: RawClient, *requests: bytes, **options: Any) -> list[Any]:
    """The replies of a whole stream."""
    replies = client.stream(iter(requests), **options)
    parse = service_pb2.ModelStreamInferResponse.FromString
    return [parse(reply) async for reply in replies]


async def test_every_rpc_of_a_restricted_group_wants_its_header(repository: Path) -> None:
    rule = f"{','.join(GROUPS)}:admin=s3cret"
    async with (
        run_server(server_config(repository, grpc_restricted_protocol=(rule,))) as server,
        server.client() as client,
    ):
        for rpc in codec.METHODS:
            call = stream(client) if rpc == "ModelStreamInfer" else client.unary(rpc)
            error = await failure(call)
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, TEXT), rpc
        for other in (health(client), watch(client), reflect_refused(client)):
            error = await failure(other)
            assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, TEXT)
        assert await client.unary("ServerLive", metadata=ADMIN)
        assert (await health(client, metadata=ADMIN)).status == 1
        assert await watch(client, metadata=ADMIN)
        assert await reflect(client, metadata=ADMIN)
        assert await client.unary("ModelInfer", REQUEST, metadata=ADMIN)
        (reply,) = await stream(client, REQUEST, metadata=ADMIN)
        assert not reply.error_message


async def test_other_groups_stay_open(repository: Path) -> None:
    rules = ("model-repository,trace:admin=s3cret", "logging:other=x")
    async with (
        run_server(server_config(repository, grpc_restricted_protocol=rules)) as server,
        server.client() as client,
    ):
        assert await client.unary("ModelInfer", REQUEST)
        error = await failure(client.unary("RepositoryIndex"))
        assert error.details() == TEXT
        assert await client.unary("RepositoryIndex", metadata=ADMIN)
        wrong = (("triton-grpc-protocol-admin", "s3creT"),)
        assert (await failure(client.unary("RepositoryIndex", metadata=wrong))).details() == TEXT


@pytest.fixture
async def keyed(tmp_path: Path, repository: Path) -> AsyncIterator[RunningServer]:
    """A server with a key for inference, one for everything, and one with limits."""
    file = write_keys(
        tmp_path / "keys.json",
        key_entry("user", "key-of-user", "inference", "metadata"),
        key_entry("admin", "key-of-admin"),
        key_entry("slow", "key-of-slow", requests_per_second=0.01, burst=2),
        key_entry("small", "key-of-small", max_request_bytes=10),
    )
    settings = {"api_keys_file": str(file), "access_reload_secs": 0.02}
    async with run_server(server_config(repository, **settings)) as server:
        yield server


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_every_rpc_wants_a_key(keyed: RunningServer) -> None:
    async with keyed.client() as client:
        calls = [
            stream(client) if rpc == "ModelStreamInfer" else client.unary(rpc) for rpc in RPC_GROUPS
        ]
        for call in (*calls, health(client), watch(client), reflect_refused(client)):
            error = await failure(call)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "'x-api-key'" in (error.details() or "")


async def test_key_opens_its_groups(keyed: RunningServer) -> None:
    async with keyed.client() as client:
        for metadata in (bearer("key-of-user"), (("x-api-key", "key-of-user"),)):
            assert await client.unary("ModelInfer", REQUEST, metadata=metadata)
            (reply,) = await stream(client, REQUEST, metadata=metadata)
            assert not reply.error_message
            error = await failure(client.unary("RepositoryIndex", metadata=metadata))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error.details() == (
                "key 'user' may not call the group 'model-repository' of this server"
            )
        assert await client.unary("RepositoryIndex", metadata=bearer("key-of-admin"))


async def test_unknown_key_is_unauthenticated_and_shown_nowhere(
    keyed: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with keyed.client() as client:
        error = await failure(client.unary("ModelInfer", b"", metadata=bearer("my-guess")))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error.details() == "the key or token is not known to this server"
    assert "my-guess" not in caplog.text


async def test_keys_are_read_anew_and_a_broken_file_changes_nothing(
    keyed: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(keyed.app.config.api_keys_file)
    async with keyed.client() as client:

        async def outcome(key: str) -> str:
            try:
                await client.unary("ModelInfer", REQUEST, metadata=bearer(key))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        async def becomes(key: str, wanted: str) -> None:
            async with asyncio.timeout(60):
                while await outcome(key) != wanted:
                    pass

        write_keys(file, key_entry("new", "key-of-new"))
        await becomes("key-of-new", "OK")
        assert await outcome("key-of-user") == "UNAUTHENTICATED"
        write_text(file, "{")
        async with asyncio.timeout(60):
            while "it is not JSON" not in caplog.text:
                await outcome("key-of-new")
        assert await outcome("key-of-new") == "OK"
        assert caplog.text.count("it is not JSON") == 1


async def test_open_group_needs_no_key(tmp_path: Path, repository: Path) -> None:
    file = write_keys(tmp_path / "keys.json", key_entry("user", "k"))
    settings = {"api_keys_file": str(file), "unauthenticated_group": ("health",)}
    async with (
        run_server(server_config(repository, **settings)) as server,
        server.client() as client,
    ):
        assert (await health(client)).status == 1
        assert await client.unary("ServerReady")
        error = await failure(client.unary("ServerMetadata"))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_rate_of_a_key_says_when_to_come_back(keyed: RunningServer) -> None:
    async with keyed.client() as client, keyed.client() as another:
        metadata = bearer("key-of-slow")
        await client.unary("ModelInfer", REQUEST, metadata=metadata)
        await another.unary("ModelInfer", REQUEST, metadata=metadata)
        for rpc, request in (("ModelInfer", REQUEST), ("ServerMetadata", b"")):
            error = await failure(client.unary(rpc, request, metadata=metadata))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "key 'slow' is over its limit of 0.01 calls per second" in str(error.details())
            trailing = trailing_of(error)
            assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 100_000
        assert await client.unary("ServerLive", metadata=metadata), "health is free"
        assert await client.unary("ServerMetadata", metadata=bearer("key-of-user"))


async def test_rate_holds_for_each_request_of_a_stream(keyed: RunningServer) -> None:
    async with keyed.client() as client:
        requests = [simple_request(id=str(number)).SerializeToString() for number in range(4)]
        replies = await stream(client, *requests, metadata=bearer("key-of-slow"))
        assert [reply.infer_response.id for reply in replies] == ["0", "1", "2", "3"]
        errors = [reply.error_message for reply in replies]
        assert errors[:2] == ["", ""]
        assert all("key 'slow' is over its limit" in text for text in errors[2:])


async def test_rate_of_a_connection_leaves_others_alone(repository: Path) -> None:
    limits = {"connection_requests_per_second": 0.01, "connection_request_burst": 1}
    async with (
        run_server(server_config(repository, **limits)) as server,
        server.client() as client,
        server.client() as another,
    ):
        await client.unary("ModelInfer", REQUEST)
        error = await failure(client.unary("ModelInfer", REQUEST))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "this connection is over its limit of 0.01 calls" in str(error.details())
        assert await another.unary("ModelInfer", REQUEST)


async def test_rate_holds_for_each_question_of_a_reflection_stream(repository: Path) -> None:
    limits = {"connection_requests_per_second": 0.01, "connection_request_burst": 2}
    async with (
        run_server(server_config(repository, **limits)) as server,
        server.client() as client,
    ):
        # One by one: grpc.aio loses the status of a call that it is still sending on.
        call = reflection(client, questions=None)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        for _ in range(2):
            await call.write(question)
            assert (await call.read()).list_services_response.service
        await call.write(question)
        error = await failure(call.read())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_size_of_a_key_is_its_own(keyed: RunningServer) -> None:
    async with keyed.client() as client:
        error = await failure(client.unary("ModelInfer", REQUEST, metadata=bearer("key-of-small")))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "bytes exceeds the limit of key 'small': 10 bytes" in str(error.details())
        assert "grpc-retry-pushback-ms" not in trailing_of(error)


async def test_limit_of_a_key_counts_shared_memory(tmp_path: Path, repository: Path) -> None:
    request = simple_request()
    request.ClearField("raw_input_contents")
    for tensor in request.inputs:
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = 64
    limit = request.ByteSize() + 127
    file = write_keys(tmp_path / "keys.json", key_entry("k", "key", max_request_bytes=limit))
    config = server_config(repository, api_keys_file=str(file), allow_client_shm=True)
    with SharedMemory.create(64, name="r") as memory:
        async with run_server(config) as server, server.client() as client:
            region = service_pb2.SystemSharedMemoryRegisterRequest(
                name="r", key=memory.key, byte_size=64
            )
            data, key = region.SerializeToString(), bearer("key")
            await client.unary("SystemSharedMemoryRegister", data, metadata=key)
            call = client.unary("ModelInfer", request.SerializeToString(), metadata=key)
            error = await failure(call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    expected = f"{request.ByteSize()} bytes and 128 in shared memory exceeds the limit of key 'k'"
    assert expected in str(error.details())


async def test_refusals_are_counted_by_reason(keyed: RunningServer) -> None:
    async with keyed.client() as client:
        await failure(client.unary("ModelInfer"))
        await failure(client.unary("ModelConfig", metadata=bearer("key-of-user")))
    metrics = (await ask(keyed.metrics_port, "/metrics")).body.decode()
    assert 'penstock_refused_total{reason="unauthenticated"} 1' in metrics
    assert 'penstock_refused_total{reason="permission_denied"} 1' in metrics


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "cannot read it"),
        ("[]", 'expected an object with one member, "keys"'),
        ('{"keys": [{"name": "a"}]}', "keys[0]: 'sha256' is missing"),
    ],
)
async def test_faulty_file_of_keys_stops_the_start(
    tmp_path: Path, repository: Path, text: str | None, fault: str
) -> None:
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(StartupError) as caught:
        async with run_server(server_config(repository, api_keys_file=str(file))):
            raise AssertionError("it serves")
    assert fault in str(caught.value)
