"""LitServe: FastAPI in front of worker processes."""

from __future__ import annotations

from peers.peer import IMAGE_BATCHES, ORT, Launch, Peer, Place, Route
from peers.protocols import RawHttp


class LitServe(Peer):
    """`fast_queue` (ZeroMQ), and two API servers as there are two cores."""

    name = "litserve"
    packages = ("litserve==0.2.19", ORT)
    variants = {
        "batches of 64, 1 ms": {"batch": 64, "wait_ms": 1, "api_servers": 2},
        "no batches": {"batch": 1, "api_servers": 2},
    }
    image_variants = {
        name: {**settings, "api_servers": 2} for name, settings in IMAGE_BATCHES.items()
    }
    notes = "fast_queue, two API servers, one worker, bodies of bytes"

    def launch(self, place: Place) -> Launch:
        return Launch([place.python, place.model_file("litserve_model.py")], place.environment())

    def routes(self, place: Place) -> list[Route]:
        return [Route("HTTP", place.http_port, RawHttp("/predict"))]


PEER = LitServe()
