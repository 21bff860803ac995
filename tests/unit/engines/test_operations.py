"""What a row costs is kept with an engine, for who serves the plan without its ONNX file."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.support.fake_tensorrt import FakeTensorRt

from penstock.engines import BuildRequest, ShapeRange, Target, build_engine, operations_of

H200 = Target((9, 0), 132, "NVIDIA H200", driver_major=580)


class Count:
    """Counts as it is told; remembers what it was asked."""

    def __init__(self, operations: int | None) -> None:
        self.operations = operations
        self.asked: list[tuple[str, dict[str, tuple[int, ...]]]] = []

    def __call__(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> int | None:
        self.asked.append((model.name, dict(inputs)))
        return self.operations


def build(request: BuildRequest, count: Count) -> Path:
    return build_engine(request, target=lambda: H200, count=count).plan


def test_count_of_one_row_is_kept(trt: FakeTensorRt, request_: BuildRequest) -> None:
    count = Count(80)
    assert operations_of(build(request_, count)) == 80
    assert count.asked == [("model.onnx", {"x": (1, 4)})]
    build(request_, count)
    assert len(count.asked) == 1, "the engine is current, and so is its count"
    assert trt.calls.count("Builder") == 1


def test_current_plan_without_a_count_gets_one(trt: FakeTensorRt, request_: BuildRequest) -> None:
    plan = build(request_, Count(None))
    sidecar = plan.with_name("model.plan.json")
    before = json.loads(sidecar.read_text())
    built = build_engine(request_, target=lambda: H200, count=Count(80))
    assert (built.was_there, built.operations, trt.builds) == (True, 80, 1)
    assert operations_of(plan) == 80
    assert json.loads(sidecar.read_text()) == {**before, "operations_per_inference": 80}
    kept = build_engine(request_, target=lambda: H200)
    assert (kept.operations, operations_of(plan)) == (80, 80), "who cannot count keeps it"


def test_dims_are_numbers_where_every_profile_has_one(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    trt.inputs = [("ids", (-1, -1)), ("mask", (-1, -1)), ("w", (3,))]
    ranges = {
        "ids": ShapeRange((128,), (128,), (128,)),
        "mask": ShapeRange((1,), (64,), (128,)),
    }
    count = Count(1)
    build(replace(request_, ranges=ranges), count)
    assert count.asked[0][1] == {"ids": (1, 128), "mask": (1, -1), "w": (3,)}


def test_what_was_not_counted_is_not_known(trt: FakeTensorRt, request_: BuildRequest) -> None:
    plan = build(request_, Count(None))
    assert operations_of(plan) is None
    assert "operations_per_inference" not in plan.with_name("model.plan.json").read_text()


def test_sidecar_of_another_plan_is_not_believed(trt: FakeTensorRt, request_: BuildRequest) -> None:
    plan = build(request_, Count(80))
    plan.write_bytes(b"another plan")
    assert operations_of(plan) is None
    plan.with_name("model.plan.json").unlink()
    assert operations_of(plan) is None


def test_sidecar_that_says_nonsense_is_not_believed(
    trt: FakeTensorRt, request_: BuildRequest
) -> None:
    plan = build(request_, Count(80))
    sidecar = plan.with_name("model.plan.json")
    sidecar.write_text(
        json.dumps({**json.loads(sidecar.read_text()), "operations_per_inference": "x"})
    )
    assert operations_of(plan) is None
