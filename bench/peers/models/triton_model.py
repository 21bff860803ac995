"""Triton's side: its Python backend, the only one in its wheel; the batches are Triton's."""

import os
import sys

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, os.environ["PEER_MODELS"])

from engine import Engine  # noqa: E402


class TritonPythonModel:
    """One instance."""

    def initialize(self, args):
        self.engine = Engine()

    def execute(self, requests):
        each = [
            pb_utils.get_input_tensor_by_name(request, self.engine.input).as_numpy()
            for request in requests
        ]
        answers = self.engine.run(np.concatenate(each) if len(each) > 1 else each[0])
        ends = np.cumsum([len(rows) for rows in each])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self.engine.output, part)])
            for part in np.split(answers, ends)
        ]
