"""Which native system under test is taken: that of the core's own build."""

import hashlib
import sysconfig
from pathlib import Path

import pytest
from mlperf import native_sut
from mlperf.native_sut import built_with

NAME = f"_penstock_loadgen{sysconfig.get_config_var('EXT_SUFFIX')}"


def built(folder: Path, core: bytes | None, name: str = NAME) -> Path:
    """A module, and what its build tells of the library that it was linked with."""
    folder.mkdir()
    module = folder / name
    module.touch()
    if core is not None:
        digest = hashlib.sha256(core).hexdigest()
        module.with_name(f"{name}.core").write_text(f"{digest}  /elsewhere/libpenstock.so\n")
    return module


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libpenstock.so"
    path.write_bytes(b"this build")
    return path


def test_module_of_the_cores_build_is_taken_whichever_that_is(
    library: Path, tmp_path: Path
) -> None:
    of_another = built(tmp_path / "release", b"another build")
    ours = built(tmp_path / "gpu", b"this build")
    folders = [tmp_path / "none", of_another.parent, ours.parent]
    assert built_with(library, folders) == ours
    library.write_bytes(b"another build")
    assert built_with(library, folders) == of_another


def test_module_of_no_known_build_is_not_taken(library: Path, tmp_path: Path) -> None:
    built(tmp_path / "a", b"another build")
    built(tmp_path / "b", None)
    built(tmp_path / "c", b"this build", name="_penstock_loadgen.of-another-python.so")
    assert built_with(library, sorted(tmp_path.glob("?"))) is None
    assert built_with(tmp_path / "absent.so", sorted(tmp_path.glob("?"))) is None


def test_builds_are_those_of_make_loadgen_and_of_bench_gpu() -> None:
    assert [folder.parts[-4] for folder in native_sut._FOLDERS] == ["release", "gpu"]
    cmake = Path(native_sut.__file__).with_name("native") / "CMakeLists.txt"
    assert "$<TARGET_FILE:_penstock_loadgen>.core" in cmake.read_text()
