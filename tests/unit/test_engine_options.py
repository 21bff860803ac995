"""What backends are told of the machine: what is configured goes first, then what is found."""

import sys
from pathlib import Path

import pytest

from penstock.config import ServerConfig
from penstock.engine_options import engine_builder, engine_directory, engine_options
from penstock.errors import ConfigError
from penstock.wiring import repository_settings


def settings(**values: object) -> ServerConfig:
    return ServerConfig(model_repository=(Path("/models"),), **values)  # type: ignore[arg-type]


def test_library_is_the_configured_one_then_that_of_the_environment_then_the_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    package = engine_options(settings())["onnxruntime"]["library"]
    assert package.endswith("onnxruntime/capi")
    monkeypatch.setenv("ONNXRUNTIME_ROOT", "/opt/ort")
    assert engine_options(settings())["onnxruntime"]["library"] == "/opt/ort/lib"
    configured = settings(backend_config=("onnxruntime,library=/mine",))
    assert engine_options(configured)["onnxruntime"]["library"] == "/mine"


def test_libraries_of_cuda_are_those_of_pips_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("cu13/lib", "cudnn/lib", "cudnn/include"):
        (tmp_path / "nvidia" / folder).mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = engine_options(settings())["onnxruntime"]["cuda_libraries"].split(":")
    assert str(tmp_path / "nvidia" / "cu13" / "lib") in found
    assert str(tmp_path / "nvidia" / "cudnn" / "lib") in found
    assert str(tmp_path / "nvidia" / "cudnn" / "include") not in found


def test_packages_in_several_places_are_all_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nvidia` is a namespace: its wheels may lie in the system's packages and in our own."""
    for place in ("system", "own"):
        (tmp_path / place / "nvidia" / f"of_{place}" / "lib").mkdir(parents=True)
        (tmp_path / place / "tensorrt_libs").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / place))
    options = engine_options(settings())
    found = options["onnxruntime"]["cuda_libraries"].split(":")
    places = [
        str(tmp_path / place / "nvidia" / f"of_{place}" / "lib") for place in ("own", "system")
    ]
    assert [each for each in found if each in places] == places
    tensorrt = [str(tmp_path / place / "tensorrt_libs") for place in ("own", "system")]
    searched = options["tensorrt"]["search"].split(":")
    assert [each for each in searched if each in tensorrt] == tensorrt


def test_library_is_in_the_place_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other" / "openvino" / "leftover").mkdir(parents=True)
    (tmp_path / "own" / "openvino" / "libs").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "other"), str(tmp_path / "own")])
    assert engine_options(settings())["openvino"]["library"] == str(
        tmp_path / "own" / "openvino" / "libs"
    )


GPU_LIBRARY = "onnxruntime/capi/libonnxruntime.so.1.31.1"


def install(site: Path, *, gpu: bool, libraries: tuple[str, ...]) -> None:
    """As pip leaves onnxruntime there, and onnxruntime-gpu where it is told so."""
    (site / "onnxruntime" / "capi").mkdir(parents=True)
    (site / "onnxruntime" / "__init__.py").touch()
    for each in libraries:
        (site / each).touch()
    if gpu:
        record = site / "onnxruntime_gpu-1.31.1.dist-info" / "RECORD"
        record.parent.mkdir()
        record.write_text(f"onnxruntime/__init__.py,,\n{GPU_LIBRARY},,\n")


def library_in(site: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("ONNXRUNTIME_ROOT", raising=False)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(site))
    return engine_options(settings())["onnxruntime"]["library"]


def test_library_is_that_of_the_wheel_for_gpus_whatever_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = "onnxruntime/capi/libonnxruntime.so.1.32.0"
    install(tmp_path, gpu=True, libraries=(GPU_LIBRARY, later))
    assert library_in(tmp_path, monkeypatch) == str(tmp_path / GPU_LIBRARY)
    configured = settings(backend_config=("onnxruntime,library=/mine",))
    assert engine_options(configured)["onnxruntime"]["library"] == "/mine"


@pytest.mark.parametrize(
    ("gpu", "library"),
    [
        pytest.param(False, GPU_LIBRARY, id="the wheel for GPUs is not installed"),
        pytest.param(True, "onnxruntime/capi/libonnxruntime.so.1.32.0", id="its library is gone"),
    ],
)
def test_library_is_looked_for_in_the_packages_directory_where_none_is_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, library: str
) -> None:
    install(tmp_path, gpu=gpu, libraries=(library,))
    assert library_in(tmp_path, monkeypatch) == str(tmp_path / "onnxruntime" / "capi")


def test_wheel_for_gpus_of_another_place_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system's is shadowed by an environment's own onnxruntime."""
    install(tmp_path / "system", gpu=True, libraries=(GPU_LIBRARY,))
    install(tmp_path / "own", gpu=False, libraries=("onnxruntime/capi/libonnxruntime.so.1.32.0",))
    monkeypatch.syspath_prepend(str(tmp_path / "system"))
    own = tmp_path / "own"
    assert library_in(own, monkeypatch) == str(own / "onnxruntime" / "capi")


def test_what_builds_engines_is_the_servers_and_not_told_the_backend() -> None:
    chosen = settings(backend_config=("tensorrt,builder=tensorrt_rtx", "tensorrt,library=/mine"))
    assert engine_builder(chosen) == "tensorrt_rtx"
    assert engine_options(chosen)["tensorrt"].keys() == {"library", "search"}
    assert engine_builder(settings()) == ""


def test_builder_that_is_none_is_refused_by_name() -> None:
    chosen = settings(backend_config=("tensorrt,builder=make",))
    with pytest.raises(ConfigError, match="tensorrt,builder: expected tensorrt or tensorrt_rtx"):
        repository_settings(chosen)


def test_engines_are_kept_where_it_is_said_or_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert engine_directory(settings()) == Path("/cache/penstock/engines")
    chosen = settings(engine_cache="/engines")
    assert engine_options(chosen)["onnxruntime"]["engine_cache"] == "/engines"
