"""The digits classifier on mosec, for bench/gateway.py; runs in mosec's own environment.

A body is 256 bytes of FP32, or a JSON list of 64 numbers; the answer is the label and the ten
probabilities, as 48 bytes or as JSON.
"""

import json
import os

import numpy as np
import onnxruntime as ort
from mosec import Server, Worker


class Digits(Worker):
    """Batches of up to 64, which nobody waits for."""

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["DIGITS_ONNX"], options)

    def deserialize(self, data):
        if data[:1] == b"[":
            return np.array(json.loads(data), np.float32), True
        return np.frombuffer(data, np.float32), False

    def forward(self, data):
        rows = np.stack([row for row, _ in data])
        labels, probabilities = self.session.run(None, {"X": rows})
        return list(zip(labels, probabilities, [is_json for _, is_json in data], strict=True))

    def serialize(self, data):
        label, probabilities, is_json = data
        if is_json:
            return json.dumps(
                {"label": int(label), "probabilities": probabilities.tolist()}
            ).encode()
        return np.int64(label).tobytes() + np.asarray(probabilities, np.float32).tobytes()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Digits, num=1, max_batch_size=64, max_wait_time=1)
    server.run()
