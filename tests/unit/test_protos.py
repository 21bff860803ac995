"""proto/ defines the very symbols that public clients were compiled with."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from tritonclient.grpc import model_config_pb2, service_pb2

from penstock import _messages

# KServe answers Load and Unload with fields where Triton has an empty message.
KSERVE_FIELDS = {
    ("RepositoryModelLoadResponse", "model_name"),
    ("RepositoryModelLoadResponse", "isLoaded"),
    ("RepositoryModelUnloadResponse", "model_name"),
    ("RepositoryModelUnloadResponse", "isUnloaded"),
}


def _triton_descriptors() -> FileDescriptorSet:
    result = FileDescriptorSet()
    for module in (model_config_pb2, service_pb2):
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        result.file.append(file)
    return result


def _field_facts(scope: str, message: DescriptorProto) -> Iterator[tuple[object, ...]]:
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        yield (
            "field",
            scope,
            field.name,
            field.number,
            field.type,
            field.type_name,
            field.label,
            oneof,
            field.proto3_optional,
            field.options.SerializeToString(deterministic=True),
        )


def _message_facts(scope: str, message: DescriptorProto) -> Iterator[tuple[object, ...]]:
    yield ("message", scope, message.options.map_entry)
    yield from _field_facts(scope, message)
    for enum in message.enum_type:
        yield from _enum_facts(f"{scope}.{enum.name}", enum)
    for nested in message.nested_type:
        yield from _message_facts(f"{scope}.{nested.name}", nested)


def _enum_facts(scope: str, enum: EnumDescriptorProto) -> Iterator[tuple[object, ...]]:
    for value in enum.value:
        yield ("enum value", scope, value.name, value.number)


def _service_facts(service: ServiceDescriptorProto) -> Iterator[tuple[object, ...]]:
    for method in service.method:
        yield (
            "rpc",
            service.name,
            method.name,
            method.input_type,
            method.output_type,
            method.client_streaming,
            method.server_streaming,
        )


def _facts(descriptors: FileDescriptorSet) -> set[tuple[object, ...]]:
    facts: set[tuple[object, ...]] = set()
    for file in descriptors.file:
        facts.add(("syntax", file.package, file.syntax))
        for message in file.message_type:
            facts.update(_message_facts(message.name, message))
        for enum in file.enum_type:
            facts.update(_enum_facts(enum.name, enum))
        for service in file.service:
            facts.update(_service_facts(service))
    return facts


def test_every_fact_of_tritonclient_is_ours() -> None:
    missing = _facts(_triton_descriptors()) - _facts(_messages.DESCRIPTORS)

    assert sorted(map(str, missing)) == []


def test_nothing_is_added_but_the_fields_of_kserve() -> None:
    extra = _facts(_messages.DESCRIPTORS) - _facts(_triton_descriptors())

    assert {fact[1:3] for fact in extra} == KSERVE_FIELDS


def test_comparison_sees_a_changed_field_number() -> None:
    changed = FileDescriptorSet.FromString(_messages.DESCRIPTORS.SerializeToString())
    changed.file[0].message_type[0].field[0].number += 100

    assert _facts(_triton_descriptors()) - _facts(changed)


def test_infer_parameter_holds_double_and_uint64_under_the_public_numbers() -> None:
    fields = _messages.pb.InferParameter.DESCRIPTOR.fields_by_name

    assert (fields["double_param"].number, fields["uint64_param"].number) == (4, 5)


def test_method_table_lists_twenty_rpcs_with_one_bidirectional_stream() -> None:
    streaming = [m.name for m in _messages.METHODS.values() if m.client_streaming]

    assert len(_messages.METHODS) == 20
    assert streaming == ["ModelStreamInfer"]
    assert _messages.METHODS["ModelStreamInfer"].server_streaming
    assert _messages.METHODS["ModelInfer"].request is _messages.pb.ModelInferRequest
    assert _messages.METHODS["ModelInfer"].path == "/inference.GRPCInferenceService/ModelInfer"


def test_message_of_ours_is_read_by_tritonclient_and_back() -> None:
    ours = _messages.pb.ModelInferRequest(
        model_name="digits",
        id="7",
        parameters={"priority": _messages.pb.InferParameter(uint64_param=2)},
        inputs=[
            _messages.pb.ModelInferRequest.InferInputTensor(
                name="x", datatype="FP32", shape=[1, -1]
            )
        ],
        raw_input_contents=[b"\x00\x01"],
    )

    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    again = _messages.pb.ModelInferRequest.FromString(theirs.SerializeToString())

    assert theirs.parameters["priority"].uint64_param == 2
    assert list(theirs.inputs[0].shape) == [1, -1]
    assert again == ours


def test_enums_are_reached_at_top_level_and_inside_their_message() -> None:
    assert _messages.pb.DataType.Value("TYPE_BF16") == _messages.pb.TYPE_BF16 == 14
    assert _messages.pb.ModelInstanceGroup.Kind.Name(2) == "KIND_CPU"
    assert _messages.pb.ModelInstanceGroup.KIND_CPU == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("penstock._messages", "tritonclient.grpc"),
        ("tritonclient.grpc", "penstock._messages"),
    ],
    ids=["ours_first", "tritonclient_first"],
)
def test_import_beside_tritonclient_works_and_leaves_the_default_pool_alone(
    first: str, second: str
) -> None:
    program = f"""
import {first}
import {second}
from google.protobuf import descriptor_pool
import penstock._messages as ours
found = descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
assert found is not ours.pb.ModelInferRequest.DESCRIPTOR
assert found.file.name == "grpc_service.proto"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_import_alone_registers_nothing_in_the_default_pool() -> None:
    program = """
import penstock._messages
from google.protobuf import descriptor_pool
try:
    descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
except KeyError:
    raise SystemExit(0)
raise SystemExit("inference.ModelInferRequest is in the default pool")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
