"""BentoML's side: JSON for digits, which it batches; a body of bytes for an image, not batched."""

from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
from engine import Engine, setting


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

    @bentoml.api(
        batchable=setting("batch", 1) > 1,
        batch_dim=0,
        max_batch_size=int(setting("batch", 1)),
        max_latency_ms=10_000,
    )
    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.engine.run(rows.astype(np.float32))

    @bentoml.api
    def image(self, image: Annotated[Path, ContentType("application/octet-stream")]) -> np.ndarray:
        return self.engine.run(self.engine.row(image.read_bytes())[None])
