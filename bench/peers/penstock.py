"""Penstock itself: `penstock serve` of this tree, native transport, HTTP embedded."""

from __future__ import annotations

import shutil

from peers.peer import IMAGE_BATCHES, Launch, Peer, Place, Route, own_python
from peers.protocols import OpenInferenceGrpc, OpenInferenceHttp

CONFIG = """\
platform: "onnxruntime_onnx"
max_batch_size: {batch:.0f}
dynamic_batching {{ max_queue_delay_microseconds: {wait_us} }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{threads}" }} }}
"""


class Penstock(Peer):
    """Its defaults; images as the peers have them."""

    name = "penstock"
    image_variants = {"batches of 8, no delay": {"wait_ms": 0}, **IMAGE_BATCHES}
    notes = "defaults, but for the batches of images"

    def launch(self, place: Place) -> Launch:
        version = place.scratch / place.workload.name / "1"
        version.mkdir(parents=True)
        shutil.copy(place.workload.model, version / "model.onnx")
        work = place.workload
        batch = place.settings.get("batch", work.batch)
        wait_us = int(1000 * place.settings.get("wait_ms", 0))
        config = CONFIG.format(batch=batch, wait_us=wait_us, threads=work.threads)
        (version.parent / "config.pbtxt").write_text(config)
        command = [own_python(), "-m", "penstock", "serve", str(place.scratch)]
        command += [f"--grpc-port={place.grpc_port}", f"--http-port={place.http_port}"]
        return Launch([*command, "--metrics-port=0", "--shutdown-grace-secs=0"])

    def routes(self, place: Place) -> list[Route]:
        return [
            Route("gRPC", place.grpc_port, OpenInferenceGrpc()),
            Route("HTTP", place.http_port, OpenInferenceHttp()),
        ]


PEER = Penstock()
