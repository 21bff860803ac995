"""Ray Serve: an HTTP proxy and a replica, each a process of a Ray cluster of one node."""

from __future__ import annotations

from peers.peer import IMAGE_BATCHES, ORT, Launch, Peer, Place, Route
from peers.protocols import RawHttp


class RayServe(Peer):
    """Ray's advice for throughput: user code and router on their processes' own loops."""

    name = "ray"
    packages = ("ray[serve]==2.60.0", ORT)
    variants = {
        "batches of 64, 1 ms": {"batch": 64, "wait_ms": 1},
        "no batches": {"batch": 1},
    }
    image_variants = IMAGE_BATCHES
    notes = "one replica, no dashboard, no access log, user code and router on one loop each"

    def launch(self, place: Place) -> Launch:
        environment = place.environment(
            RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD="0",
            RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP="0",
            RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE="1000",
            RAY_USAGE_STATS_ENABLED="0",
            RAY_TMPDIR=str(place.scratch),
        )
        return Launch([place.python, place.model_file("ray_model.py")], environment)

    def routes(self, place: Place) -> list[Route]:
        return [Route("HTTP", place.http_port, RawHttp("/"))]


PEER = RayServe()
