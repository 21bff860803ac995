"""Classical models as scikit-learn exports them: ai.onnx.ml, dimensions without names."""

import warnings

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


def digits(
    *, zipmap: bool = False, text_labels: bool = False
) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """A logistic regression on the digits data set, and the images it was trained on.

    Args:
        zipmap: scikit-learn's default export, whose probabilities are a sequence of maps: a server
            must refuse it.
        text_labels: labels "d0" to "d9" instead of 0 to 9, so that the label output is BYTES.

    Returns:
        X FP32 [-1,64] -> label [-1], probabilities FP32 [-1,10]; and images [n,64] in 0..1.
    """
    images, truth = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    labels = np.array([f"d{each}" for each in truth]) if text_labels else truth
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: good enough to serve
        model = LogisticRegression(max_iter=30).fit(images, labels)
    return to_onnx(model, images[:1], options={"zipmap": zipmap}, target_opset=17), images
