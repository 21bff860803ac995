"""Compiles the proto files into what the server and the client load at run time.

Run as ``python proto/generate.py``; grpcio-tools in the running interpreter is all it needs. Each
package gets a folder ``_proto`` (git-ignored) with, of inference/ (and of penstock/v1/ as
jobs.binpb and jobs_pb.pyi)

* ``inference.binpb``: a FileDescriptorSet with imports, from which the package builds its message
  classes in a descriptor pool of its own (see proto/README.md for why not ``*_pb2`` modules);
* ``inference_pb.pyi``: the types of those classes, read by mypy and editors only.

A file is written only when its contents change, and by rename, so that an incremental build sees
nothing new and a build that is interrupted leaves no half of a file.
"""

from __future__ import annotations

import keyword
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
SERVER, CLIENT = "server/penstock/_proto", "clients/python/penstock_client/_proto"
GATEWAY = "clients/gateway/penstock_gateway/_proto"
PACKAGES = {
    "inference": ("inference", (SERVER, CLIENT, GATEWAY)),
    "penstock/v1": ("jobs", (SERVER, CLIENT)),
    "keda": ("externalscaler", (SERVER,)),
}
"""By folder of sources: the name of the products, and where they go."""

_SCALARS = {
    FieldDescriptorProto.TYPE_DOUBLE: "float",
    FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_STRING: "str",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
}

_STUB_HEAD = '''\
"""Types of message classes. Written by proto/generate.py."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from google.protobuf.internal.containers import (
    MessageMap,
    RepeatedCompositeFieldContainer,
    RepeatedScalarFieldContainer,
    ScalarMap,
)
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
'''


def compile_descriptors(proto_root: Path, package: str) -> FileDescriptorSet:
    """Compiles every file of the package; raises SystemExit after protoc has said why it failed."""
    sources = sorted(str(path) for path in (proto_root / package).glob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "set.binpb")
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={proto_root}",
                f"--descriptor_set_out={out}",
                "--include_imports",
                *sources,
            ]
        )
        if status != 0:
            raise SystemExit(f"protoc failed with status {status} on {proto_root / package}")
        return FileDescriptorSet.FromString(out.read_bytes())


def render_stub(descriptors: FileDescriptorSet) -> str:
    """Renders the typed stub of all messages and enums as one flat module."""
    lines = [_STUB_HEAD]
    for file in descriptors.file:
        for enum in file.enum_type:
            lines += [*_enum_lines(enum, class_level=False), ""]
        for message in file.message_type:
            lines += [*_message_lines(message), ""]
    return "\n".join(lines).rstrip() + "\n"


def write_if_changed(path: Path, data: bytes) -> bool:
    """Puts `data` at `path` by rename; leaves an equal file untouched. Returns whether it wrote."""
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
    return True


def generate(repository_root: Path) -> list[Path]:
    """Brings the products of every package up to date; returns the files that were written."""
    written = []
    for package, (name, homes) in PACKAGES.items():
        descriptors = compile_descriptors(repository_root / "proto", package)
        products = {
            f"{name}.binpb": descriptors.SerializeToString(deterministic=True),
            f"{name}_pb.pyi": render_stub(descriptors).encode(),
        }
        folders = [repository_root / folder for folder in homes]
        targets = [(folder / n, data) for folder in folders for n, data in products.items()]
        written += [path for path, data in targets if write_if_changed(path, data)]
    return written


def _python_name(type_name: str) -> str:
    """`.inference.A.B` as it is called inside the flat stub."""
    packages = [f".{package.replace('/', '.')}." for package in ("externalscaler", *PACKAGES)]
    return next(type_name.removeprefix(p) for p in packages if type_name.startswith(p))


def _value_type(field: FieldDescriptorProto) -> str:
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        return _python_name(field.type_name)
    return _SCALARS.get(field.type, "int")


def _is_message(field: FieldDescriptorProto) -> bool:
    return field.type == FieldDescriptorProto.TYPE_MESSAGE


def _map_entry(
    message: DescriptorProto, field: FieldDescriptorProto
) -> tuple[FieldDescriptorProto, FieldDescriptorProto] | None:
    """The key and value fields when `field` is a map, which descriptors spell as nested entries."""
    for nested in message.nested_type:
        is_entry = nested.options.map_entry
        if is_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return nested.field[0], nested.field[1]
    return None


def _attribute_type(message: DescriptorProto, field: FieldDescriptorProto) -> tuple[str, bool]:
    """The type of a field on read, and whether it can be assigned."""
    if entry := _map_entry(message, field):
        container = "MessageMap" if _is_message(entry[1]) else "ScalarMap"
        return f"{container}[{_value_type(entry[0])}, {_value_type(entry[1])}]", False
    value = _value_type(field)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        kind = "Composite" if _is_message(field) else "Scalar"
        return f"Repeated{kind}FieldContainer[{value}]", False
    return value, not _is_message(field)


def _argument_type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """The type of a field as a keyword argument of the constructor."""
    if entry := _map_entry(message, field):
        return f"Mapping[{_value_type(entry[0])}, {_value_type(entry[1])}]"
    value = _value_type(field)
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        value += " | str"
    return f"Iterable[{value}]" if field.label == FieldDescriptorProto.LABEL_REPEATED else value


def _enum_lines(enum: EnumDescriptorProto, *, class_level: bool) -> Iterator[str]:
    form = "ClassVar[{}]" if class_level else "{}"
    yield f"{enum.name}: {form.format('EnumTypeWrapper')}"
    for entry in enum.value:
        yield f"{entry.name}: {form.format('int')}"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"    {line}" if line else line for line in lines)


def _message_lines(message: DescriptorProto) -> Iterator[str]:
    yield f"class {message.name}(Message):"
    for enum in message.enum_type:
        yield from _indented(_enum_lines(enum, class_level=True))
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _indented(_message_lines(nested))
    # A field named by a keyword exists at run time for getattr() and setattr() only.
    fields = [field for field in message.field if not keyword.iskeyword(field.name)]
    for field in fields:
        yield from _indented(_field_lines(message, field))
    if fields:
        yield "    def __init__("
        yield "        self,"
        yield "        *,"
        for field in fields:
            yield f"        {field.name}: {_argument_type(message, field)} | None = ...,"
        yield "    ) -> None: ..."
    else:
        yield "    def __init__(self) -> None: ..."


def _field_lines(message: DescriptorProto, field: FieldDescriptorProto) -> Iterator[str]:
    attribute, is_assignable = _attribute_type(message, field)
    if is_assignable:
        yield f"{field.name}: {attribute}"
    else:
        yield "@property"
        yield f"def {field.name}(self) -> {attribute}: ..."


def main() -> int:
    """Runs `generate` on the repository that holds this file."""
    root = PROTO_ROOT.parent
    for path in generate(root):
        print(f"wrote {path.relative_to(root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
