"""mosec's side: a body is one row's bytes, and so is the answer."""

import numpy as np
from engine import Engine, setting
from mosec import Server, Worker


class Model(Worker):
    """One process, as ONNX Runtime has one instance elsewhere."""

    def __init__(self):
        self.engine = Engine()
        self.is_batched = setting("batch", 1) > 1

    def deserialize(self, data):
        return self.engine.row(data)

    def forward(self, data):
        if self.is_batched:
            return list(self.engine.run(np.stack(data)))
        return self.engine.run(data[None])[0]

    def serialize(self, data):
        return data.tobytes()


if __name__ == "__main__":
    server = Server()
    batch = int(setting("batch", 1))
    server.append_worker(
        Model, num=1, max_batch_size=batch, max_wait_time=int(setting("wait_ms", 1))
    )
    server.run()
