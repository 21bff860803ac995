"""What a build refuses before TensorRT is started, when it is started, and how that fails."""

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_tensorrt import FakeTensorRt

from penstock.engines import (
    BuildRequest,
    Built,
    EngineError,
    ShapeRange,
    Target,
    build_engine,
    verify_engine,
)
from penstock.engines import kept as kept_module
from penstock.errors import ConfigError

LABEL = "model 'm' version 1"
H200 = Target((9, 0), 132, "NVIDIA H200", driver_major=580)
NULL = TypeError("pybind11::init(): factory function returned nullptr")


def build(request: BuildRequest, device: Target = H200) -> Built:
    return build_engine(request, target=lambda: device)


def refusal(request: BuildRequest) -> str:
    with pytest.raises((EngineError, ConfigError)) as raised:
        build(request)
    assert not request.output.exists()
    return str(raised.value)


def test_package_with_a_number_of_its_own_builds(trt: FakeTensorRt, request_: BuildRequest) -> None:
    trt.__version__ = "10.14.1.48.post1"
    key = build(request_).key
    library = verify_engine(request_.output)["recipe"]["library"]
    assert library == ["tensorrt", "10.14.1.48.post1"]
    trt.__version__ = "10.14.1.48"
    assert build(request_).key != key


def test_version_that_is_not_in_full_is_refused_before_anything_is_started(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    trt.__version__ = "11.1"
    why = f"{LABEL}: version of tensorrt: expected it in full, such as 11.1.0.106, got '11.1'"
    assert why in refusal(request_)
    assert trt.calls == []


@pytest.mark.parametrize(
    "shapes",
    [
        ShapeRange((16,), (8,), (512,)),
        ShapeRange((16,), (128, 1), (512,)),
        ShapeRange((16,), (1024,), (512,)),
    ],
)
def test_shapes_that_do_not_follow_on_one_another_are_refused_before_anything_is_started(
    trt: FakeTensorRt, request_: BuildRequest, shapes: ShapeRange
) -> None:
    why = refusal(replace(request_, ranges={"ids": shapes}))
    assert f"{LABEL}: shape of input 'ids': expected least <= likely <= greatest" in why
    assert trt.calls == []


def test_file_that_cannot_be_read_is_said(trt: FakeTensorRt, request_: BuildRequest) -> None:
    request_.model.unlink()
    assert refusal(request_) == f"{LABEL}: a file cannot be read: No such file or directory"
    assert trt.calls == []


def test_engines_of_rtx_are_never_version_compatible(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = FakeTensorRt()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    why = refusal(replace(request_, flavour="tensorrt_rtx", version_compatible=True))
    assert why.startswith(f"{LABEL}: no engine of tensorrt_rtx is version-compatible")
    assert rtx.calls == []


def test_plug_ins_are_registered_before_there_is_a_parser(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    build(request_)
    assert trt.calls == ["Builder", "init_libnvinfer_plugins", "OnnxParser"]


def test_package_without_plug_ins_builds(trt: FakeTensorRt, request_: BuildRequest) -> None:
    del trt.init_libnvinfer_plugins
    build(request_)
    assert trt.calls == ["Builder", "OnnxParser"]


def test_plug_ins_that_are_not_there_are_told_and_end_nothing(
    trt: FakeTensorRt, request_: BuildRequest, caplog: pytest.LogCaptureFixture
) -> None:
    trt.has_plugins = False
    build(request_)
    assert "TensorRT's own plug-ins cannot be registered: models may need them" in caplog.messages


def test_builder_that_is_not_made_is_refused_by_its_first_words(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    trt.start_errors = ("CUDA initialization failure with error: 35", "it failed")
    trt.start_fault = NULL
    expected = f"{LABEL}: TensorRT does not start: CUDA initialization failure with error: 35"
    assert refusal(request_) == expected


def test_builder_that_is_made_without_a_device_is_not_used(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    """What it hands out then is not null, and crashes when it is used."""
    trt.start_errors = ("CUDA initialization failure with error: 2",)
    assert "TensorRT does not start: CUDA initialization failure" in refusal(request_)
    assert trt.network_flags == 0, "no network was asked for"


def test_rtx_needs_no_device_whatever_it_logs(
    request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = FakeTensorRt(start_errors=("there is no device",))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert build(replace(request_, flavour="tensorrt_rtx")).size_bytes == 4


def test_fault_in_how_the_package_is_called_is_no_refusal(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    trt.start_fault = TypeError("incompatible constructor arguments")
    with pytest.raises(TypeError, match="incompatible"):
        build(request_)


def test_what_was_asked_for_before_is_found_without_the_builder(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    first = build(request_)
    trt.calls.clear()
    again = build(request_)
    assert (again.was_there, again.key, trt.calls) == (True, first.key, [])
    build(request_, replace(H200, driver_major=590))
    assert trt.calls[0] == "Builder", "another driver's is another engine"


def test_other_request_for_the_same_engine_reads_the_network_once(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    key = build(request_).key
    same = replace(request_, ranges={"x": ShapeRange((4,), (4,), (4,))})  # what the file says
    trt.calls.clear()
    built = [build(same) for _ in range(2)]
    assert [(each.was_there, each.key) for each in built] == [(True, key)] * 2
    assert (trt.calls.count("Builder"), trt.builds) == (1, 1)


def test_engine_in_a_place_that_cannot_be_written_to_is_found(
    trt: FakeTensorRt, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(request_)
    same = replace(request_, ranges={"x": ShapeRange((4,), (4,), (4,))})

    def read_only(**_: object) -> object:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("penstock.engines.kept.tempfile.mkstemp", read_only)
    assert build(same).was_there


def test_plan_that_is_not_what_was_built_is_built_again_though_it_was_asked_for(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    build(request_)
    request_.output.write_bytes(b"plam")
    assert not build(request_).was_there
    assert trt.builds == 2


def test_lean_runtime_of_its_package_is_opened_for_a_plan_that_holds_it(
    trt: FakeTensorRt, request_: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt_lean_libs", raising=False)
    (tmp_path / "tensorrt_lean_libs.py").write_text("")
    build(request_)
    assert "tensorrt_lean_libs" not in sys.modules
    build(replace(request_, version_compatible=True))
    assert sys.modules.pop("tensorrt_lean_libs") is not None


def test_library_of_a_plan_is_what_its_sidecar_says(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    build(request_)
    assert kept_module.library_of(request_.output) == "TensorRT 11.1.0.106"
    sidecar = kept_module.sidecar_of(request_.output)
    sidecar.write_text(sidecar.read_text().replace('"library"', '"else"'))
    assert kept_module.library_of(request_.output) is None
    request_.output.write_bytes(b"another's")
    assert kept_module.library_of(request_.output) is None
