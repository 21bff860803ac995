"""The demo's model: a small classifier of scikit-learn's handwritten digits, exported to ONNX."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.commands._failure import CommandError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL = "digits"
INPUT = "X"
LABEL = "label"
PROBABILITIES = "probabilities"
MAX_BATCH_SIZE = 64

_SEED = 7
_CONFIG = """\
# What the model file does not say. With a delay of 0 the oldest request never waits while an
# instance is idle; a delay lets a batch fill that long.
platform: "onnxruntime_onnx"
max_batch_size: %d
dynamic_batching { max_queue_delay_microseconds: %d }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """A trained model with what it was not trained on.

    Attributes:
        onnx: the model file's content.
        images: held-out images, [n, 64] float32.
        truth: what they show, [n].
        labels: what scikit-learn's model says they show, [n].
        probabilities: its probabilities, [n, 10].
        trained_on: number of images it was trained on.
    """

    onnx: bytes
    images: npt.NDArray[np.float32]
    truth: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    trained_on: int


def train() -> Digits:
    """Trains the classifier; the same every time.

    Raises:
        CommandError: scikit-learn or its ONNX exporter is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import MinMaxScaler
    except ImportError as error:
        raise CommandError(_missing(error)) from None
    images, truth = load_digits(return_X_y=True)
    train_x, held_out, train_y, held_out_truth = train_test_split(
        images.astype("float32"), truth, test_size=0.25, random_state=_SEED, stratify=truth
    )
    network = MLPClassifier(hidden_layer_sizes=(64, 64), max_iter=300, random_state=_SEED)
    classifier = _fitted(make_pipeline(MinMaxScaler(), network), train_x, train_y)
    return Digits(
        onnx=_export(classifier),
        images=held_out,
        truth=held_out_truth,
        labels=classifier.predict(held_out),
        probabilities=classifier.predict_proba(held_out),
        trained_on=len(train_x),
    )


def _fitted(classifier: Any, images: Any, truth: Any) -> Any:
    """The classifier, trained. scikit-learn makes Ctrl-C a warning and goes on: not here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Training interrupted")
        try:
            return classifier.fit(images, truth)
        except UserWarning:
            raise KeyboardInterrupt from None


def _export(classifier: Any) -> bytes:
    try:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise CommandError(_missing(error)) from None
    model = to_onnx(
        classifier,
        initial_types=[(INPUT, FloatTensorType([None, 64]))],
        options={"zipmap": False},
    )
    content: bytes = model.SerializeToString()
    return content


def _missing(error: ImportError) -> str:
    return f"the demo needs {(error.name or '').partition('.')[0]}: pip install 'penstock[demo]'"


def write_repository(root: Path, onnx: bytes, queue_delay_us: int) -> None:
    """Lays out a repository: <root>/digits/config.pbtxt and <root>/digits/1/model.onnx.

    Args:
        root: its directory.
        onnx: the model file's content.
        queue_delay_us: how long a batch may wait for more rows.

    Raises:
        OSError: it cannot be written there.
    """
    version = root / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / "model.onnx").write_bytes(onnx)
    (root / MODEL / "config.pbtxt").write_text(_CONFIG % (MAX_BATCH_SIZE, queue_delay_us))
