"""The work: a model file, rows to ask with, and what ONNX Runtime alone says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from mlperf import networks

from penstock.commands import _demo_model

Array = npt.NDArray[np.float32]
_SEED = 3


@dataclass(frozen=True, eq=False)
class Workload:
    """Attributes:
    rows: [n, ...] float32, different from each other; answers: [n, k] float32.
    concurrency: requests in flight, one point each; rates: open loop, requests a second.
    threads: of the engine; batch: the most rows at a time.
    """

    name: str
    model: Path
    input: str
    output: str
    rows: Array
    answers: Array
    threads: int
    batch: int
    concurrency: tuple[int, ...]
    rates: tuple[int, ...]
    tolerance: float

    def points(self) -> list[str]:
        """Of the table: "c16" is 16 in flight, "r200" 200 requests a second."""
        return [f"c{n}" for n in self.concurrency] + [f"r{n}" for n in self.rates]


def digits(folder: Path, rates: tuple[int, ...]) -> Workload:
    """The demo's classifier, its probabilities; one thread."""
    path = folder / "digits.onnx"
    path.write_bytes(_demo_model.train().onnx)
    rows = np.random.default_rng(_SEED).random((200, 64), np.float32) * np.float32(16)
    shape = ("X", _demo_model.PROBABILITIES)
    answers = _ask(path, *shape, rows)
    points = ((1, 16, 64), rates)
    return Workload("digits", path, *shape, rows, answers, 1, 64, *points, 1e-4)


def resnet50(folder: Path) -> Workload:
    """ResNet-50 v1.5 with seeded random weights; two threads, 8 in flight."""
    path = folder / "resnet50.onnx"
    path.write_bytes(networks.resnet50())
    rows = np.random.default_rng(_SEED).random((8, 3, 224, 224), np.float32)
    answers = _ask(path, "image", "logits", rows)
    return Workload("resnet50", path, "image", "logits", rows, answers, 2, 8, (8,), (), 1e-3)


def _ask(model: Path, name: str, output: str, rows: Array) -> Array:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answers: Array = session.run([output], {name: rows})[0]
    return answers
