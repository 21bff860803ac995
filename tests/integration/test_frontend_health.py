"""grpc.health.v1 and server reflection on the wire."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tests.support.fake_frontend import FakeServer, serve_frontend
from tests.support.raw_grpc import RawClient, raw_client

from penstock import codec

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
REFLECTIONS = ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with serve_frontend() as started:
        yield started


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[RawClient]:
    async with raw_client(server.address) as connected:
        yield connected


def question(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", codec.SERVICE_NAME])
async def test_health_follows_readiness(
    server: FakeServer, client: RawClient, service: str
) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    assert (await stub.Check(question(service))).status == SERVING
    server.models.is_ready = False
    assert (await stub.Check(question(service))).status == NOT_SERVING
    server.models.is_ready = True
    server.readiness.withdraw()
    assert (await stub.Check(question(service))).status == NOT_SERVING


async def test_health_of_another_service_is_not_found(client: RawClient) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    with pytest.raises(grpc.aio.AioRpcError, match="nobody") as caught:
        await stub.Check(question("nobody"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(question("nobody"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_every_watcher_sees_every_change_until_the_server_closes(
    server: FakeServer, client: RawClient
) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    leaver, first, second = (stub.Watch(question()) for _ in range(3))
    for watch in (leaver, first, second):
        assert (await watch.read()).status == SERVING
    leaver.cancel()
    server.readiness.withdraw()
    for watch in (first, second):
        assert (await watch.read()).status == NOT_SERVING
    server.readiness.close()
    for watch in (first, second):
        with pytest.raises(grpc.aio.AioRpcError, match="shutting down"):
            await watch.read()


async def test_watcher_hears_of_an_unloaded_model(server: FakeServer, client: RawClient) -> None:
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(question())
    assert (await watch.read()).status == SERVING
    await client.unary("RepositoryModelUnload")
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def reflect(client: RawClient, service: str, **request: str) -> bytes:
    """The serialised answer of one reflection request."""
    call = client.channel.stream_stream(f"/{service}/ServerReflectionInfo", None, None)()
    await call.write(reflection_pb2.ServerReflectionRequest(**request).SerializeToString())
    reply: bytes = await call.read()
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK
    return reply


@pytest.mark.parametrize("reflection", REFLECTIONS)
async def test_reflection_lists_the_services(client: RawClient, reflection: str) -> None:
    reply = reflection_pb2.ServerReflectionResponse.FromString(
        await reflect(client, reflection, list_services="")
    )
    names = {service.name for service in reply.list_services_response.service}
    assert names == {codec.SERVICE_NAME, "grpc.health.v1.Health", *REFLECTIONS}


async def test_reflection_is_enough_to_call_the_service(client: RawClient) -> None:
    """As grpcurl does it: fetch the descriptors, make the messages, call."""
    reply = reflection_pb2.ServerReflectionResponse.FromString(
        await reflect(client, REFLECTIONS[0], file_containing_symbol=codec.SERVICE_NAME)
    )
    pool = DescriptorPool()
    files = [
        FileDescriptorProto.FromString(data)
        for data in reply.file_descriptor_response.file_descriptor_proto
    ]
    for file in sorted(files, key=lambda file: len(file.dependency)):
        pool.Add(file)
    method = pool.FindServiceByName(codec.SERVICE_NAME).FindMethodByName("ServerMetadata")
    request, response = map(GetMessageClass, (method.input_type, method.output_type))
    answer = response.FromString(
        await client.unary("ServerMetadata", request().SerializeToString())
    )
    assert answer.name == "fake"  # type: ignore[attr-defined]


@pytest.mark.parametrize("symbol", ["grpc.health.v1.Health", REFLECTIONS[0]])
async def test_reflection_knows_the_other_services(client: RawClient, symbol: str) -> None:
    reply = reflection_pb2.ServerReflectionResponse.FromString(
        await reflect(client, REFLECTIONS[0], file_containing_symbol=symbol)
    )
    assert reply.file_descriptor_response.file_descriptor_proto


async def test_open_reflection_stream_does_not_hold_up_the_stop(
    server: FakeServer, client: RawClient
) -> None:
    path = f"/{REFLECTIONS[0]}/ServerReflectionInfo"
    call = client.channel.stream_stream(path, None, None)()
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    await call.write(request.SerializeToString())
    assert await call.read()
    server.readiness.close()
    await server.transport.stop(3600)
    assert await call.code() == grpc.StatusCode.UNAVAILABLE
