"""mosec: a server in Rust in front of Python processes."""

from __future__ import annotations

from peers.peer import IMAGE_BATCHES, ORT, Launch, Peer, Place, Route
from peers.protocols import RawHttp


class Mosec(Peer):
    """Batches that are not full wait 1 ms at least: so each load has a size of its own."""

    name = "mosec"
    packages = ("mosec==0.9.8", ORT)
    variants = {
        "batches of 16, 1 ms": {"batch": 16, "wait_ms": 1},
        "batches of 64, 1 ms": {"batch": 64, "wait_ms": 1},
        "no batches": {"batch": 1},
    }
    image_variants = IMAGE_BATCHES
    notes = "one worker; 1 ms is the least that its batches wait"
    wins = {"HTTP": "its HTTP front is Rust, Penstock's is Python"}

    def launch(self, place: Place) -> Launch:
        command = [place.python, place.model_file("mosec_model.py"), "--address=127.0.0.1"]
        command += [f"--port={place.http_port}", "--timeout=60000", "--log-level=warning"]
        return Launch(command, place.environment())

    def routes(self, place: Place) -> list[Route]:
        return [Route("HTTP", place.http_port, RawHttp("/inference"))]


PEER = Mosec()
