"""BentoML's side: JSON for digits, which it batches; a body of bytes for an image, not batched."""

from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
from engine import Engine, setting

BATCH = int(setting("batch", 1))
# Over the latency it answers 503; how long a batch waits is what it learns by itself.
BATCHES = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": 10_000}


@bentoml.service(
    workers=1,
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Model:
    """One worker."""

    def __init__(self):
        self.engine = Engine()

    @bentoml.api(**(BATCHES if BATCH > 1 else {}))
    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.engine.run(rows.astype(np.float32))

    @bentoml.api
    def image(
        self, image: Annotated[Path, ContentType("application/octet-stream")], /
    ) -> np.ndarray:
        return self.engine.run(self.engine.row(image.read_bytes())[None])
