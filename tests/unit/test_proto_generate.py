"""proto/generate.py writes the products of the packages, only when they change."""

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def _load_generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "proto_generate", REPOSITORY_ROOT / "proto" / "generate.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _load_generate()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in generate.PACKAGES:
        shutil.copytree(REPOSITORY_ROOT / "proto" / package, tmp_path / "proto" / package)
    return tmp_path


def test_products_of_the_packages_are_equal(tree: Path) -> None:
    written = generate.generate(tree)

    assert [str(path.relative_to(tree)) for path in written] == [
        "server/penstock/_proto/inference.binpb",
        "server/penstock/_proto/inference_pb.pyi",
        "clients/python/penstock_client/_proto/inference.binpb",
        "clients/python/penstock_client/_proto/inference_pb.pyi",
        "clients/gateway/penstock_gateway/_proto/inference.binpb",
        "clients/gateway/penstock_gateway/_proto/inference_pb.pyi",
        "server/penstock/_proto/jobs.binpb",
        "server/penstock/_proto/jobs_pb.pyi",
        "clients/python/penstock_client/_proto/jobs.binpb",
        "clients/python/penstock_client/_proto/jobs_pb.pyi",
        "server/penstock/_proto/externalscaler.binpb",
        "server/penstock/_proto/externalscaler_pb.pyi",
    ]
    for first, last in ((0, 6), (6, 10)):
        for kind in (0, 1):
            copies = [path.read_bytes() for path in written[first + kind : last : 2]]
            assert copies == [copies[0]] * len(copies)


def test_second_run_without_a_change_writes_nothing(tree: Path) -> None:
    generate.generate(tree)

    assert generate.generate(tree) == []


def test_changed_source_is_written_whole_and_leaves_no_scratch_file(tree: Path) -> None:
    generate.generate(tree)
    source = tree / "proto" / "inference" / "grpc_service.proto"
    source.write_text(source.read_text() + "\nmessage Added { optional bool global = 1; }\n")

    written = generate.generate(tree)

    assert len(written) == 6
    assert "class Added(Message):\n    def __init__(self) -> None: ..." in written[1].read_text()
    assert sorted(os.listdir(written[2].parent)) == [
        *("inference.binpb", "inference_pb.pyi", "jobs.binpb", "jobs_pb.pyi")
    ]


def test_broken_source_ends_with_protocs_status_and_keeps_the_products(tree: Path) -> None:
    product = generate.generate(tree)[0]
    before = product.read_bytes()
    (tree / "proto" / "inference" / "grpc_service.proto").write_text('syntax = "proto3";\nmessage')

    with pytest.raises(SystemExit, match="protoc failed with status 1"):
        generate.generate(tree)

    assert product.read_bytes() == before
