"""The engine of every Python peer: ONNX Runtime on the model that the bench names."""

import os

import numpy as np
import onnxruntime as ort


class Engine:
    """Rows in, rows out; the settings are those of Penstock's own session."""

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        path = os.environ["PEER_MODEL"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found = self.session.get_inputs()[0]
        self.input = found.name
        self.shape = found.shape[1:]
        self.output = os.environ["PEER_OUTPUT"]

    def row(self, body):
        """One row from its bytes."""
        return np.frombuffer(body, np.float32).reshape(self.shape)

    def run(self, rows):
        """Rows [n, ...] to answers [n, k]."""
        return self.session.run([self.output], {self.input: rows})[0]


def setting(name, default):
    """What the peer's variant says, a number."""
    return float(os.environ.get(f"PEER_{name.upper()}", default))
