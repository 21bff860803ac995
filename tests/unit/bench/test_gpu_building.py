"""bench/gpu: the step `build`, and what is gathered for machines without packages."""

import importlib.util
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from gpu import building, needs, running, staging, steps
from gpu.running import Ran, StepError, run
from gpu.step import Context
from tests.support.gpu_samples import H200

CMAKE_FAILED = """\
-- ok
CMake Error at csrc/protocol/CMakeLists.txt:2 (find_path):
  Could not find PROTOZERO_INCLUDE_DIR using the following files: protozero/varint.hpp

-- Configuring incomplete, errors occurred!
"""


BEFORE = (Ran(0, ""), Ran(0, ""))  # protocols are made, and packages are looked for
IN_PYTHON = "the system under test is Python, whose own limit served rates then meet"


def context_of(tmp_path: Path, *answers: Ran) -> tuple[Context, list[list[str]]]:
    """A context whose programs answer in turn, and what was run."""
    left, asked = list(answers), []

    def runner(command: Sequence[str], limit_s: float) -> Ran:
        asked.append(list(command))
        return left.pop(0)

    return Context(H200, runner, tmp_path), asked


@pytest.fixture(autouse=True)
def nothing_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "bring_packages", lambda context: None)
    monkeypatch.setattr(building, "loadgen_sources", lambda: None)


def test_build_is_for_this_gpu_and_this_python(tmp_path: Path) -> None:
    told = "-- CUDA 13.0: kernels for 90-real\n-- The native transport is left out: x\n-- Build\n"
    lacking = Ran(0, "- CuPy is not installed; client will be left out\nnoise\n")
    context, asked = context_of(tmp_path, Ran(0, ""), lacking, Ran(0, told), Ran(0, ""))
    assert list(building.build(context)) == [
        "CuPy is not installed; client will be left out",
        "CUDA 13.0: kernels for 90-real",
        "The native transport is left out: x",
        f"LoadGen's sources are not here: {IN_PYTHON}",
    ]
    assert "-DCMAKE_CUDA_ARCHITECTURES=90-real" in asked[2]
    assert "-DPENSTOCK_WERROR=OFF" in asked[2], "another compiler has other warnings"
    assert f"-DPython_EXECUTABLE={sys.executable}" in asked[2]
    assert asked[3][:3] == ["cmake", "--build", str(running.BUILD)]


def test_build_without_googletest_has_no_tests(tmp_path: Path) -> None:
    no_gtest = Ran(1, CMAKE_FAILED.replace("PROTOZERO_INCLUDE_DIR", "GTest"))
    context, asked = context_of(tmp_path, *BEFORE, no_gtest, Ran(0, ""), Ran(0, ""))
    note, _ = building.build(context)
    assert str(note).startswith("without tests: Could not find GTest")
    assert "-DPENSTOCK_BUILD_TESTS=OFF" in asked[3]
    assert asked[4][-3:] == ["all", "gpu_bench", "penstock_gpu_fixture"]


def test_native_side_of_loadgen_is_built_where_its_sources_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "loadgen_sources", lambda: tmp_path / "loadgen")
    context, asked = context_of(tmp_path, *BEFORE, *[Ran(0, "")] * 3)
    assert list(building.build(context)) == []
    assert f"-DPENSTOCK_LOADGEN_DIR={tmp_path / 'loadgen'}" in asked[2]
    assert asked[4][-2:] == ["--target", "_penstock_loadgen"]


def test_native_side_that_cannot_be_built_fails_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "loadgen_sources", lambda: tmp_path)
    told = Ran(1, "ninja: error: unknown target '_penstock_loadgen'\n")
    context, _ = context_of(tmp_path, *BEFORE, *[Ran(0, "")] * 2, told)
    reason = "ninja: error: unknown target '_penstock_loadgen'"
    assert list(building.build(context)) == [
        f"LoadGen's native side was not built ({reason}): {IN_PYTHON}"
    ]


def test_loadgens_sources_are_those_that_were_brought_or_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    places = [tmp_path / "stage", tmp_path / "make"]
    for place in places:
        place.mkdir()
    assert building.loadgen_sources(places) is None
    for place in reversed(places):
        (place / "VERSION.txt").touch()
        assert building.loadgen_sources(places) == place
    assert running.LOADGEN[0] == running.STAGE / "loadgen", "where staging puts them"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (CMAKE_FAILED, "cmake: Could not find PROTOZERO_INCLUDE_DIR using the following"),
        ("-- ok\nno compiler\n\n", "cmake: it ended with status 1: no compiler"),
    ],
)
def test_build_that_fails_says_why(output: str, reason: str, tmp_path: Path) -> None:
    failed = Ran(1, output)
    context, _ = context_of(tmp_path, *BEFORE, failed, failed)
    with pytest.raises(StepError, match=reason):
        list(building.build(context))


def test_compiler_that_is_not_on_the_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "nvcc"
    compiler.touch()
    monkeypatch.setattr(building, "_NVCC", compiler)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert f"-DCMAKE_CUDA_COMPILER={compiler}" in building.configure_command(H200, True)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert "CMAKE_CUDA_COMPILER" not in " ".join(building.configure_command(H200, True))


def test_what_was_brought_is_where_cmake_looks(tmp_path: Path) -> None:
    assert "CMAKE_PREFIX_PATH" not in " ".join(
        building.configure_command(H200, True, stage=tmp_path)
    )
    (tmp_path / "usr").mkdir()
    command = building.configure_command(H200, True, stage=tmp_path)
    assert f"-DCMAKE_PREFIX_PATH={tmp_path / 'usr'}" in command


def test_packages_that_are_missing_are_told_with_what_they_cost() -> None:
    assert {"tritonclient", "torch"} <= {name for name, *_ in needs.PACKAGES}
    assert list(needs.missing(lambda name: True, lambda: "")) == []
    reason = "ONNX Runtime has no CUDA provider here: install onnxruntime-gpu"
    told = list(needs.missing(lambda name: name not in ("mlperf_loadgen", "cupy"), lambda: reason))
    assert told == [
        f"{reason}; answers, ceiling, offline, grpc and server will be left out, and peak, unless "
        "torch or CuPy computes it",
        "LoadGen (mlcommons-loadgen) is not installed; offline, grpc and server will be left out",
        "CuPy is not installed; client will be left out, and of serve the tensors in the GPU's "
        "memory",
    ]
    assert needs.is_there("numpy") and not needs.is_there("penstock_nobody")


def test_steps_that_are_said_to_be_left_out_are_steps() -> None:
    named = {name for _, _, names, _ in needs.PACKAGES for name in names}
    assert named
    assert named <= {step.name for step in steps.STEPS}


def without_grpc_tools(name: str) -> None:
    assert name == "grpc_tools"


def test_products_that_were_brought_are_taken_where_no_compiler_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without_grpc_tools)
    monkeypatch.setattr(building, "ROOT", tmp_path)
    context, asked = context_of(tmp_path)
    with pytest.raises(StepError, match="grpc_tools is not installed: bring .*gpu.staging.* stage"):
        building.bring_protocols(context, tmp_path / "stage")
    product = tmp_path / "stage" / "products" / "server" / "penstock" / "_proto" / "x.binpb"
    product.parent.mkdir(parents=True)
    product.write_bytes(b"x")
    building.bring_protocols(context, tmp_path / "stage")
    assert (tmp_path / "server" / "penstock" / "_proto" / "x.binpb").read_bytes() == b"x"
    assert not asked


def test_wheels_that_were_brought_are_installed_once_and_anew_where_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "a-1-py3-none-any.whl"
    wheel.touch()
    asked = []

    def pip(command: Sequence[str], limit_s: float) -> Ran:
        asked.append(list(command))
        Path(command[command.index("--target") + 1]).mkdir()
        return Ran(0, "")

    for _ in range(2):
        building.bring_packages(Context(H200, pip, tmp_path), tmp_path, tmp_path / "site")
    assert len(asked) == 1
    assert "--no-index" in asked[0]
    (tmp_path / "site" / "of-before").touch()
    wheel.rename(wheel.with_name("a-2-py3-none-any.whl"))
    building.bring_packages(Context(H200, pip, tmp_path), tmp_path, tmp_path / "site")
    assert len(asked) == 2, "others were brought"
    assert [each.name for each in (tmp_path / "site").iterdir()] == ["wheels.txt"]


def test_wheels_that_cannot_be_installed_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a-1-py3-none-any.whl").touch()
    context, _ = context_of(tmp_path, Ran(1, "ERROR: not a wheel for this platform\n"))
    with pytest.raises(StepError, match="pip ended with status 1: ERROR: not a wheel"):
        building.bring_packages(context, tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_programs_find_the_packages_of_the_tree() -> None:
    script = "import penstock, penstock_client; print(penstock_client.__file__)"
    done = run([sys.executable, "-S", "-c", "import sys; print(sys.path)"], 60.0)
    for place in ("server", "clients/python", "clients/gateway"):
        assert str(running.ROOT / place) in done.output
    assert str(running.ROOT) in run([sys.executable, "-c", script], 60.0).output


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/usr/include/protozero/varint.hpp", "include/protozero/varint.hpp"),
        ("/usr/include/x86_64-linux-gnu/zconf.h", "include/zconf.h"),
        ("/usr/lib/x86_64-linux-gnu/libgtest.a", "lib/x86_64-linux-gnu/libgtest.a"),
        ("/lib/x86_64-linux-gnu/libz.so.1", "lib/x86_64-linux-gnu/libz.so.1"),
        (
            "/usr/lib/x86_64-linux-gnu/cmake/GTest/x.cmake",
            "lib/x86_64-linux-gnu/cmake/GTest/x.cmake",
        ),
        ("/usr/lib/x86_64-linux-gnu/libcrypto.a", None),
        ("/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", None),
        ("/usr/share/doc/libssl3/copyright", None),
    ],
)
def test_what_is_gathered_of_packages(path: str, place: str | None) -> None:
    assert staging.destination(path) == place


def test_gathered_links_name_what_lies_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "libx.so.1"
    source.write_text("x")
    link = tmp_path / "libx.so"
    link.symlink_to(source)
    monkeypatch.setattr(staging, "files_of", lambda packages: [str(source), str(link)])
    monkeypatch.setattr(staging, "destination", lambda path: f"lib/{Path(path).name}")
    for _ in range(2):
        staging.gather_files(tmp_path / "prefix")
    assert (tmp_path / "prefix" / "lib" / "libx.so").readlink() == Path("libx.so.1")


def test_source_distribution_is_unpacked_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "x-1").mkdir()
    (tmp_path / "x-1" / "VERSION.txt").write_text("1")
    with tarfile.open(tmp_path / "x-1.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x-1", "x-1")
    staging.unpack(tmp_path / "x-1.tar.gz", tmp_path / "new" / "loadgen")
    assert (tmp_path / "new" / "loadgen" / "VERSION.txt").read_text() == "1"


SERVER = """
import penstock.app, penstock.commands, penstock_client, penstock_gateway, uvicorn
uvicorn.Config(None).load()
"""
SERVED = """
sys.path.insert(0, "bench")
import onnxruntime
from mlperf import cli
from gpu import answers, bare_loop, served
"""
TOLD = """
from importlib.metadata import packages_distributions
known = packages_distributions()
found = {name for each in sys.modules for name in known.get(each.partition(".")[0], [])}
print(*sorted(name.lower().replace("_", "-") for name in found))
"""
ELSEWHERE = {"numpy", "penstock", "penstock-client", "penstock-gateway", "setuptools"}
LARGE = {"ml-dtypes", "onnx", "onnxruntime"}  # which have to be there for served models
OPTIONAL = {"grpcio-tools"}  # grpcio looks for it, and goes on without


@pytest.mark.parametrize(
    ("program", "one", "there"),
    [(SERVER, "uvloop", ELSEWHERE), (SERVED, "tritonclient", ELSEWHERE | LARGE)],
    ids=["server", "served models"],
)
def test_wheels_are_what_is_imported(program: str, one: str, there: set[str]) -> None:
    done = run([sys.executable, "-c", f"import sys\n{program}{TOLD}"], 60.0)
    assert done.status == 0, done.output
    imported = set(done.output.split())
    assert one in imported
    assert imported - there - OPTIONAL <= set(staging.WHEELS)


def test_wheels_are_those_of_the_lock() -> None:
    lock = (running.ROOT / "requirements.lock").read_text()
    wanted = staging.requirements(lock)
    assert wanted.count("==") == len(staging.WHEELS)
    assert all(f"\n{name}==" in f"\n{wanted.lower()}" for name in staging.WHEELS)
    assert not wanted.rstrip().endswith("\\")
    with pytest.raises(ValueError, match="has no nobody"):
        staging.requirements(lock, ["nobody"])
