"""MLServer: the Open Inference protocol in Python."""

from __future__ import annotations

import json

from _measure import free_port
from peers.peer import IMAGE_BATCHES, ORT, Launch, Peer, Place, Route
from peers.protocols import OpenInferenceGrpc, OpenInferenceHttp


class MLServer(Peer):
    """In one process: its inference workers cost more than this model does."""

    name = "mlserver"
    packages = ("mlserver==1.7.1", ORT)
    variants = {
        "batches of 64, 1 ms": {"batch": 64, "wait_ms": 1},
        "no batches": {"batch": 0, "wait_ms": 0},
    }
    image_variants = {**IMAGE_BATCHES, "no batches": {"batch": 0, "wait_ms": 0}}
    notes = "no parallel workers, adaptive batching; HTTP is JSON, it has no binary data"

    def launch(self, place: Place) -> Launch:
        place.model_file("mlserver_model.py")
        settings = {"http_port": place.http_port, "grpc_port": place.grpc_port}
        settings |= {"metrics_port": free_port(), "parallel_workers": 0}
        more = {"host": "127.0.0.1", "debug": False, "metrics_endpoint": None}
        (place.scratch / "settings.json").write_text(json.dumps(settings | more))
        batch, wait_s = int(place.settings["batch"]), place.settings["wait_ms"] / 1000
        model = {
            "name": place.workload.name,
            "implementation": "mlserver_model.Model",
            "max_batch_size": min(batch, place.workload.batch),
            "max_batch_time": wait_s,
        }
        (place.scratch / "model-settings.json").write_text(json.dumps(model))
        command = [str(place.home / "bin/mlserver"), "start", str(place.scratch)]
        return Launch(command, place.environment())

    def routes(self, place: Place) -> list[Route]:
        grpc = Route("gRPC", place.grpc_port, OpenInferenceGrpc())
        http = Route("HTTP", place.http_port, OpenInferenceHttp(binary=False))
        # An image is 3 MB of JSON: nobody would.
        return [grpc] if place.workload.name == "resnet50" else [grpc, http]


PEER = MLServer()
