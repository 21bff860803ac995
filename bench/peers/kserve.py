"""KServe's Python server: the Open Inference protocol, one request at a time."""

from __future__ import annotations

from peers.peer import ORT, Launch, Peer, Place, Route
from peers.protocols import OpenInferenceGrpc, OpenInferenceHttp


class KServe(Peer):
    """Its SDK has no batching; in Kubernetes a separate agent does that."""

    name = "kserve"
    packages = ("kserve==0.21.0", ORT)
    notes = "one worker; the SDK has no batching"

    def launch(self, place: Place) -> Launch:
        return Launch([place.python, place.model_file("kserve_model.py")], place.environment())

    def routes(self, place: Place) -> list[Route]:
        return [
            Route("gRPC", place.grpc_port, OpenInferenceGrpc()),
            Route("HTTP", place.http_port, OpenInferenceHttp()),
        ]


PEER = KServe()
