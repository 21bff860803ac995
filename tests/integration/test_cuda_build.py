"""What needs CUDA or TensorRT's headers is compiled, linked and opened where there is no GPU."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.cuda_build import BUILD, build_with_cuda, device_code
from tests.support.engine_wheels import engine_wheel
from tests.support.fixture_models import WITH_FAKE_GPUS
from tests.support.server_process import served

import penstock
from penstock_client import Client

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

EVERY_ARCHITECTURE = {("elf", 80), ("elf", 90), ("elf", 100), ("elf", 120), ("ptx", 120)}
PACKAGE = Path(penstock.__file__).parent
ADAPTERS = "penstock_tensorrt_engine_*.so"


@pytest.fixture
def no_driver(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds none, also on a machine that has one."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").write_text("this is not a library")
    return {**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "driver")}


def test_kernels_are_compiled_for_every_architecture_and_say_that_there_is_no_gpu(
    no_driver: dict[str, str],
) -> None:
    build = build_with_cuda("penstock_cuda", "cuda_test", "gpu_bench")
    program, bench = build / "tests/native/gpu/cuda_test", build / "bench/gpu/native/gpu_bench"
    for binary in (*build.rglob("libpenstock_cuda.a"), program, bench):
        assert device_code(binary) == EVERY_ARCHITECTURE, binary

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=no_driver, capture_output=True, text=True, check=False)

    tested = run(program)
    assert tested.returncode == 0, tested.stdout
    assert "[       OK ] CudaWithoutGpuTest.Open_SaysThatThereIsNone" in tested.stdout
    assert "there is no CUDA driver on this machine" in tested.stdout
    measured = run(bench, "copies")
    assert (measured.returncode, measured.stderr) == (
        3,
        "gpu_bench: UNAVAILABLE: there is no CUDA driver on this machine\n",
    )


def package_with(adapters: list[Path], place: Path) -> Path:
    """A directory for PYTHONPATH: the package with these adapters among its backends."""
    package = place / "penstock"
    (package / "backends").mkdir(parents=True)
    for each in (*PACKAGE.iterdir(), *(PACKAGE / "backends").iterdir(), *adapters):
        inner = package / "backends" if each.parent != PACKAGE else package
        if each.name != "backends":
            (inner / each.name).symlink_to(each)
    return place


@pytest.fixture
def adapters(tmp_path: Path) -> list[Path]:
    """Of this build: one for each set of headers, those of 10.0 left out."""
    roots = os.environ.get("TensorRT_ROOT", "")  # noqa: SIM112
    if not roots:
        pytest.skip("TensorRT's headers are in no package, and TensorRT_ROOT does not name them")
    too_old = tmp_path / "too_old"
    (too_old / "include").mkdir(parents=True)
    (too_old / "include" / "NvInferRuntime.h").touch()
    version = "#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 0\n"
    (too_old / "include" / "NvInferVersion.h").write_text(version)
    backends = BUILD / "penstock" / "backends"
    for built_before in backends.glob(ADAPTERS):
        built_before.unlink()
    build_with_cuda("penstock_tensorrt", tensorrt_roots=f"{roots}:{too_old}")
    built = list(backends.glob(ADAPTERS))
    assert len(built) == len(roots.split(":"))
    return built


def test_adapters_run_on_libraries_of_their_headers_and_say_why_the_lean_one_does_not_start(
    adapters: list[Path], no_driver: dict[str, str]
) -> None:
    """Its runtime without CUDA is a pointer that any call crashes with."""
    roots = os.environ["TensorRT_ROOT"]  # noqa: SIM112
    build_with_cuda(*(f"{each.stem}_test" for each in adapters), tensorrt_roots=roots)
    wheel = engine_wheel("tensorrt_lean_cu13_libs==11.1.0.106")
    lean = str(wheel / "tensorrt_lean_libs" / "libnvinfer_lean.so.11")
    for each in adapters:
        is_of_major = "_11_" in each.name
        environment = {**no_driver, **({"PENSTOCK_TEST_LEAN": lean} if is_of_major else {})}
        program = BUILD / "tests" / "native" / "backends" / f"{each.stem}_test"
        ended = subprocess.run(
            [program], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        has_run = "[       OK ] NvinferRuntimeTest.LeanRuntimeWithoutCuda" in ended.stdout
        assert has_run == is_of_major, ended.stdout


def test_adapters_are_compiled_and_opened_with_the_lean_library(
    adapters: list[Path], tmp_path: Path
) -> None:
    """As far as there is no GPU: CUDA's runtime takes no fake driver for one."""
    for each in adapters:
        symbols = subprocess.check_output(["nm", "-D", "--defined-only", each], text=True)
        assert "penstock_tensorrt_engine_v1" in symbols.split(), each
        needed = subprocess.check_output(["readelf", "-d", each], text=True)
        assert "nvinfer" not in needed and "libcuda" not in needed, "they are opened, not linked"

    wheel = engine_wheel("tensorrt_lean_cu13_libs==11.4.0.106")
    path = f"{package_with(adapters, tmp_path / 'overlay')}:{wheel}"
    (tmp_path / "models" / "plan" / "1").mkdir(parents=True)
    (tmp_path / "models" / "plan" / "1" / "model.plan").write_bytes(b"ftrt")
    flags = ("--exit-on-error=false", "--strict-readiness=false")
    environment = {**WITH_FAKE_GPUS, "PYTHONPATH": path}
    with served(tmp_path / "models", *flags, environment=environment) as server:
        with Client(server.grpc) as client:
            (plan,) = client.repository_index()
    if any("engine_11_" in each.name for each in adapters):
        assert "TensorRT cannot be used: CUDA finds no device: " in plan.reason
    else:
        assert "which is of another major version: needed is 10." in plan.reason
