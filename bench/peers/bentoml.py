"""BentoML: JSON for digits, which it can batch; a body of bytes for an image, which it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from peers.peer import ORT, Launch, Peer, Place, Route
from peers.protocols import Protocol, RawHttp, Request
from peers.workload import Array, Workload


class Rows(Protocol):
    """The array as nested lists, both ways."""

    def encode(self, work: Workload, row: Array) -> Request:
        text = json.dumps({"rows": [row.tolist()]}).encode()
        return Request("/rows", text, {"Content-Type": "application/json"})

    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        return np.array(json.loads(body), np.float32).ravel()


class Image(RawHttp):
    """Bytes in, a list out."""

    def decode(self, headers: Mapping[str, str], body: bytes) -> Array:
        return np.array(json.loads(body), np.float32).ravel()


class BentoML(Peer):
    """One worker: two of them would be two engines, which no other peer has."""

    name = "bentoml"
    packages = ("bentoml==1.4.40", ORT)
    variants = {"batches of 64": {"batch": 64}, "no batches": {"batch": 1}}
    image_variants = {"no batches": {"batch": 1}}  # it cannot batch bodies of bytes
    notes = "adaptive batching, one worker, access log and metrics off"

    def launch(self, place: Place) -> Launch:
        place.model_file("bentoml_model.py")
        command = [str(place.home / "bin/bentoml"), "serve", "bentoml_model:Model"]
        command += ["--host=127.0.0.1", f"--port={place.http_port}"]
        command += [f"--working-dir={place.scratch}"]
        environment = place.environment(BENTOML_HOME=str(place.scratch), BENTOML_DO_NOT_TRACK="1")
        return Launch(command, environment)

    def routes(self, place: Place) -> list[Route]:
        is_image = place.workload.name == "resnet50"
        return [Route("HTTP", place.http_port, Image("/image") if is_image else Rows())]


PEER = BentoML()
