"""How many batches may be under way on a GPU is the core's affair, and told here a second time."""

import re
from pathlib import Path

from penstock.repository.backends import slots_on_gpu

CORE = Path(__file__).resolve().parents[3] / "csrc"


def number(file: str, pattern: str) -> int:
    found = re.search(pattern, (CORE / file).read_text())
    assert found, f"csrc/{file} has no {pattern}"
    return int(found[1])


def test_slots_are_those_of_the_core() -> None:
    slots = number("gpu/lane_group.h", r"size_t slots_per_lane = (\d+);")
    tensorrt = number("backends/tensorrt/plan_settings.h", r"size_t lanes = (\d+);")
    onnxruntime = number("backends/onnxruntime/gpu_models.cc", r"size_t kLanes = (\d+);")
    most = number("backends/tensorrt/plan_settings.cc", r"uint64_t kMaxLanes = (\d+);")
    assert slots_on_gpu("tensorrt", {}) == slots * tensorrt
    assert slots_on_gpu("onnxruntime", {}) == slots * onnxruntime
    assert slots_on_gpu("onnxruntime", {"lanes": str(most)}) == slots * most
    beyond = {"lanes": str(most + 1)}
    assert slots_on_gpu("tensorrt", beyond) == slots * tensorrt, "the core refuses it"
