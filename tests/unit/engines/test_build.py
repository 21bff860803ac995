"""Engines are built once, found again by what made them, and never left half-written."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fake_tensorrt import FakeTensorRt

from penstock.engines import BuildRequest, Built, EngineError, Target, build_engine, verify_engine
from penstock.engines import kept as kept_module
from penstock.engines.target import find_target
from penstock.errors import ConfigError

H200 = Target((9, 0), 132, "NVIDIA H200", driver_major=580)
Build = Callable[[BuildRequest], Built]


def build(request: BuildRequest, device: Target = H200) -> Built:
    return build_engine(request, target=lambda: device)


def test_plan_and_sidecar_are_written_and_verified(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    built = build(request_)
    assert (built.was_there, built.size_bytes) == (False, 4)
    assert request_.output.read_bytes() == b"plan"
    sidecar = verify_engine(request_.output)
    assert sidecar["key"] == built.key
    assert sidecar["recipe"]["target"] == [[9, 0], 132, "NVIDIA H200", 580]
    assert [each["x"] for each in trt.profiles] == [
        ((1, 4), (1, 4), (1, 4)),
        ((2, 4), (8, 4), (8, 4)),
    ]
    assert trt.network_flags == 1 << 1
    names = sorted(path.name for path in request_.output.parent.iterdir())
    assert names == ["model.plan", "model.plan.json"]


def test_current_plan_is_not_built_again(trt: FakeTensorRt, request_: BuildRequest) -> None:
    first = build(request_)
    again = build(request_)
    assert (again.was_there, again.key, trt.builds) == (True, first.key, 1)


def test_whatever_it_depends_on_has_it_built_again(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    keys = [build(request_).key]
    (request_.model.parent / "weights.bin").write_bytes(b"outside of the file")
    keys.append(build(request_).key)
    request_.model.write_bytes(b"other onnx, with weights.bin")
    keys.append(build(request_).key)
    keys.append(build(request_, replace(H200, multiprocessors=66)).key)
    keys.append(build(replace(request_, buckets=(8,))).key)
    keys.append(build(replace(request_, version_compatible=True, workspace_bytes=1 << 20)).key)
    assert len(set(keys)) == trt.builds == 6
    assert trt.workspace_bytes == 1 << 20


def test_version_compatible_plan_holds_the_runtime_that_it_needs(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    """Without it who runs the plan would have to open that of the building version."""
    build(replace(request_, version_compatible=True))
    assert trt.flags == ["VERSION_COMPATIBLE"]
    assert verify_engine(request_.output)["recipe"]["builder_flags"] == trt.flags


def test_plan_that_is_not_what_was_built_is_refused_and_built_again(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    build(request_)
    request_.output.write_bytes(b"plam")
    with pytest.raises(EngineError, match=r"'model\.plan' is not what was built"):
        verify_engine(request_.output)
    assert not build(request_).was_there
    assert verify_engine(request_.output)
    assert trt.builds == 2


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_plan_without_a_sidecar_is_refused(
    trt: FakeTensorRt, request_: BuildRequest, content: str | None
) -> None:
    build(request_)
    sidecar = kept_module.sidecar_of(request_.output)
    if content is None:
        sidecar.unlink()
    else:
        sidecar.write_text(content)
    with pytest.raises(EngineError, match="beside it"):
        verify_engine(request_.output)
    assert not build(request_).was_there
    assert json.loads(sidecar.read_text())["sha256"]


def test_failed_build_leaves_what_was_there(trt: FakeTensorRt, request_: BuildRequest) -> None:
    before = build(request_)
    trt.plan, trt.errors = None, ("no kernel\n  for node 'conv1'", "the engine is null")
    with pytest.raises(EngineError) as caught:
        build(replace(request_, buckets=(4,)))
    why = "TensorRT builds no engine: no kernel for node 'conv1'"
    assert str(caught.value) == f"model 'm' version 1: {why}", "the first: it is the cause"
    assert verify_engine(request_.output)["key"] == before.key
    names = sorted(path.name for path in request_.output.parent.iterdir())
    assert names == ["model.plan", "model.plan.json"]


def test_node_that_is_not_supported_is_named(trt: FakeTensorRt, request_: BuildRequest) -> None:
    trt.parse_error = ("no importer", "strange", "NoSuchOp")
    with pytest.raises(EngineError) as caught:
        build(request_)
    assert str(caught.value) == (
        "model 'm' version 1: node 'strange' (NoSuchOp) is not supported: no importer"
    )
    assert not request_.output.exists()


def test_input_that_is_open_is_named_with_its_model(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    trt.inputs = [("ids", (-1, -1))]
    with pytest.raises(ConfigError) as caught:
        build(request_)
    assert caught.value.faults[0].startswith("model 'm' version 1: input 'ids': its shape [-1, -1]")


def test_profile_that_is_refused_is_said(trt: FakeTensorRt, request_: BuildRequest) -> None:
    trt.accepts_profiles = False
    with pytest.raises(EngineError, match="TensorRT refuses profile 0: it does not say why"):
        build(request_)


def test_timings_are_kept_for_the_next_build(
    trt: FakeTensorRt, request_: BuildRequest, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "timings"
    build(replace(request_, timing_cache=cache))
    assert cache.read_bytes() == b"timings"
    build(replace(request_, timing_cache=cache, buckets=(2,)))
    assert trt.timings == [b"", b"timings"]


def test_timings_of_another_device_are_begun_anew(
    trt: FakeTensorRt, request_: BuildRequest, tmp_path: Path
) -> None:
    cache = tmp_path / "timings"
    cache.write_bytes(b"another device's")
    trt.accepts_timings = False
    build(replace(request_, timing_cache=cache))
    assert trt.timings == [b"another device's", b""]
    cache.write_bytes(b"another device's")
    trt.plan, trt.errors = None, ("no kernel",)
    with pytest.raises(EngineError, match="builds no engine: no kernel"):
        build(replace(request_, timing_cache=cache, buckets=(4,)))


def test_progress_is_told_of_the_outermost_phase(trt: FakeTensorRt, request_: BuildRequest) -> None:
    told: list[tuple[str, int, int]] = []
    build_engine(request_, lambda *step: told.append(step), target=lambda: H200)
    assert trt.builds == 1
    assert told == [("Building engine", step, 2) for step in (0, 1, 2)]


def test_place_that_cannot_be_written_is_said(
    trt: FakeTensorRt, request_: BuildRequest, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be used: "):
        build(replace(request_, output=tmp_path / "file" / "model.plan"))
    assert trt.builds == 0


def test_missing_package_is_named(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="'tensorrt' is not installed: engines are built by it"):
        build(request_)


def test_library_that_there_is_not_is_refused(request_: BuildRequest) -> None:
    with pytest.raises(EngineError, match="expected one of tensorrt, tensorrt_rtx, got 'os'"):
        build(replace(request_, flavour="os"))


def test_without_a_driver_tensorrt_is_not_called(
    trt: FakeTensorRt, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr("penstock.engines.target.ctypes.CDLL", missing)
    with pytest.raises(EngineError, match="there is no CUDA driver on this machine"):
        build_engine(request_, target=find_target)
    assert trt.builds == 0
