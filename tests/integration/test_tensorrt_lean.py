"""TensorRT's lean runtime, the real library of its wheels, in the probe and in a server.

Nothing runs: there is no GPU. What is asked is that each end is one reason and no crash, and that
the library's version is looked at before anything else of it is called.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.support.engine_wheels import engine_wheel
from tests.support.fixture_models import WITH_FAKE_GPUS
from tests.support.models import onnx_files
from tests.support.server_process import served

import penstock
from penstock_client import Client

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

VERSIONS = ("11.1.0.106", "11.4.0.106")
LIBRARY = "libnvinfer_lean.so.11"
PLUGINS = Path(penstock.__file__).parent / "backends"
NO_DRIVER = "there is no CUDA driver on this machine (libcuda.so.1 cannot be opened)"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wheel(version: str) -> Path:
    return engine_wheel(f"tensorrt_lean_cu13_libs=={version}")


@pytest.fixture
def no_driver(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a process that finds none, also on a machine that has one."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "libcuda.so.1").write_text("this is not a library")
    return {"LD_LIBRARY_PATH": str(tmp_path / "driver")}


def probe(wheel: Path, headers: str, environment: Mapping[str, str]) -> str:
    """The last line of the probe, of a build that has adapters for those headers."""
    library = wheel / "tensorrt_lean_libs" / LIBRARY
    command = [str(PLUGINS / "penstock_tensorrt_probe"), headers, str(library)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout.splitlines()[-1].removeprefix("penstock-probe ")


@pytest.mark.parametrize("headers", ["11.1", "10.16", "12.0"])
def test_without_a_driver_the_library_is_not_come_to(
    wheel: Path, no_driver: Mapping[str, str], headers: str
) -> None:
    assert probe(wheel, headers, no_driver) == f"away {NO_DRIVER}"


def test_library_that_an_adapter_drives_is_found_with_its_version(
    wheel: Path, version: str
) -> None:
    found = probe(wheel, "11.1,10.16", WITH_FAKE_GPUS)
    library = wheel / "tensorrt_lean_libs" / LIBRARY
    assert found == f"found {version.replace('.', ' ')} {library}"


@pytest.mark.parametrize("headers", ["10.16", "12.0"])
def test_headers_of_another_major_are_refused_before_a_call(
    wheel: Path, version: str, headers: str
) -> None:
    major = headers.partition(".")[0]
    assert probe(wheel, headers, WITH_FAKE_GPUS) == (
        f"refused TensorRT {version} was found, which is of another major version: needed is "
        f"{headers} or a later {major}.x"
    )


def test_library_older_than_the_headers_is_refused(wheel: Path, version: str) -> None:
    assert probe(wheel, "11.5", WITH_FAKE_GPUS) == (
        f"refused TensorRT {version} was found, which is too old: needed is 11.5 or a later 11.x"
    )


def reason(repository: Path, environment: Mapping[str, str], *flags: str) -> str:
    """Why a plan is not served, by a server that serves another model meanwhile, and ends well."""
    plan = repository / "plan" / "1" / "model.plan"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(b"ftrt")
    onnx_files.write_model(repository, "simple", onnx_files.simple())
    flags = ("--exit-on-error=false", "--strict-readiness=false", *flags)
    with served(repository, *flags, environment=environment) as server:
        with Client(server.grpc) as client:
            index = {each.name: each for each in client.repository_index()}
            a = np.arange(16, dtype=np.int32).reshape(1, 16)
            result = client.infer("simple", {"INPUT0": a, "INPUT1": a})
    np.testing.assert_array_equal(result["OUTPUT0"], a * 2)
    assert index["plan"].state == "UNAVAILABLE"
    return index["plan"].reason.removeprefix("failed to load 'plan', ")


def test_server_with_pips_package_and_without_a_driver_says_the_driver(
    wheel: Path, no_driver: Mapping[str, str], tmp_path: Path
) -> None:
    why = reason(tmp_path / "models", {**no_driver, "PYTHONPATH": str(wheel)})
    assert why == f"TensorRT cannot be used: {NO_DRIVER}"


@pytest.mark.parametrize("is_configured", [False, True], ids=["pip", "configured"])
def test_server_that_finds_the_library_says_what_its_build_lacks(
    wheel: Path, version: str, tmp_path: Path, is_configured: bool
) -> None:
    """With an adapter for it, it is the device: CUDA's runtime takes no fake driver for one."""
    place = str(wheel / "tensorrt_lean_libs")
    flags = ("--backend-config", f"tensorrt,library={place}") if is_configured else ()
    environment = {**WITH_FAKE_GPUS, **({} if is_configured else {"PYTHONPATH": str(wheel)})}
    why = reason(tmp_path / "models", environment, *flags)
    if any(PLUGINS.glob("penstock_tensorrt_engine_11_*.so")):
        assert why.startswith("TensorRT cannot be used: CUDA finds no device: ")
    else:
        assert why == (
            f"TensorRT cannot be used: TensorRT {version} was found, but this build of Penstock "
            "has no adapter: it was built without TensorRT's headers (TensorRT_ROOT)"
        )
