"""An Open Inference client that has no protocol files: everything comes from reflection."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tests.support.models import onnx_files
from tests.support.server_process import served

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[grpc.Channel]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    with served(repository) as server, grpc.insecure_channel(server.grpc) as opened:
        yield opened


class Stub:
    """The methods of a service as the server describes them."""

    def __init__(self, channel: grpc.Channel, service: str) -> None:
        self._channel = channel
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self._service = self._pool.FindServiceByName(service)

    def request(self, method: str, **fields: Any) -> Any:
        return GetMessageClass(self._service.methods_by_name[method].input_type)(**fields)

    def call(self, method: str, request: Any) -> Any:
        found = self._service.methods_by_name[method]
        many = found.server_streaming
        make: Callable[..., Any] = (
            self._channel.stream_stream if many else self._channel.unary_unary
        )
        rpc = make(
            f"/{self._service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return list(rpc(iter(request))) if many else rpc(request)


@pytest.fixture
def stub(channel: grpc.Channel) -> Stub:
    return Stub(channel, SERVICE)


def infer_request(stub: Stub, start: int) -> Any:
    request = stub.request("ModelInfer", model_name="simple", id=str(start))
    for name, numbers in (("INPUT0", range(start, start + 16)), ("INPUT1", [1] * 16)):
        tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
        tensor.contents.int_contents.extend(numbers)
    return request


def test_services_are_listed(channel: grpc.Channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)


def test_model_is_found_described_and_asked(stub: Stub) -> None:
    assert stub.call("ServerReady", stub.request("ServerReady")).ready
    metadata = stub.call("ModelMetadata", stub.request("ModelMetadata", name="simple"))
    assert [(each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("INT32", [-1, 16])
    ] * 2
    reply = stub.call("ModelInfer", infer_request(stub, 5))
    assert reply.id == "5"
    sums = np.frombuffer(reply.raw_output_contents[0], np.int32)
    assert sums.tolist() == list(range(6, 22))


def test_stream_of_requests_is_answered(stub: Stub) -> None:
    replies = stub.call("ModelStreamInfer", [infer_request(stub, start) for start in range(5)])
    assert [reply.infer_response.id for reply in replies] == ["0", "1", "2", "3", "4"]
    assert not any(reply.error_message for reply in replies)


def test_configuration_comes_with_its_own_types(stub: Stub) -> None:
    config = stub.call("ModelConfig", stub.request("ModelConfig", name="simple")).config
    assert (config.name, config.backend) == ("simple", "onnxruntime")


def test_health_service_is_described_too(channel: grpc.Channel) -> None:
    health = Stub(channel, "grpc.health.v1.Health")
    reply = health.call("Check", health.request("Check"))
    assert (
        reply.status
        == reply.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_name["SERVING"].number
    )
