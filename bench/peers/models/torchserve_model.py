"""TorchServe's side: a body is one row's bytes, and so is the answer."""

import os
import sys

import numpy as np

sys.path.insert(0, os.environ["PEER_MODELS"])

from engine import Engine  # noqa: E402


class Handler:
    """TorchServe calls what has `initialize` and `handle`."""

    def initialize(self, context):
        self.engine = Engine()

    def handle(self, data, context):
        rows = [self.engine.row(each.get("body") or each.get("data")) for each in data]
        return [answer.tobytes() for answer in self.engine.run(np.stack(rows))]
