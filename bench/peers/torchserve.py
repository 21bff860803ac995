"""TorchServe: a server in Java in front of Python workers; no longer maintained."""

from __future__ import annotations

import subprocess

from _measure import free_port
from peers.peer import IMAGE_BATCHES, MODELS, ORT, Launch, Peer, Place, Route
from peers.protocols import RawHttp

CONFIG = """\
inference_address=http://127.0.0.1:{http}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_port={grpc}
grpc_management_port={grpc_management}
default_workers_per_model=1
disable_token_authorization=true
enable_envvars_config=false
model_store={store}
load_models={name}.mar
job_queue_size=1000
disable_system_metrics=true
models={{"{name}": {{"1.0": {{"marName": "{name}.mar", "minWorkers": 1, "maxWorkers": 1, \
"batchSize": {batch}, "maxBatchDelay": {wait_ms}, "defaultVersion": true}}}}}}
"""


class TorchServe(Peer):
    """One worker, which runs ONNX Runtime; its server imports torch all the same."""

    name = "torchserve"
    # It imports yaml and pkg_resources, which setuptools 82 lacks, without asking for them.
    packages = (
        "torchserve==0.12.0",
        "torch-model-archiver==0.12.0",
        "torch==2.13.0",
        "setuptools==80.9.0",
        "pyyaml==6.0.3",
        ORT,
    )
    programs = ("java",)
    variants = {
        "batches of 64, 1 ms": {"batch": 64, "wait_ms": 1},
        "no batches": {"batch": 1, "wait_ms": 1},
    }
    image_variants = IMAGE_BATCHES
    notes = "one worker, batches formed by the Java side, token check and system metrics off"
    wins = {"HTTP": "its HTTP front is Java (Netty), Penstock's is Python"}

    def launch(self, place: Place) -> Launch:
        name = place.workload.name
        store = place.scratch / "store"
        store.mkdir()
        archive = [str(place.home / "bin/torch-model-archiver"), f"--model-name={name}"]
        archive += ["--version=1.0", f"--handler={MODELS / 'torchserve_model.py'}"]
        archive += [f"--extra-files={MODELS / 'engine.py'}", f"--export-path={store}"]
        subprocess.run(archive, check=True, env=place.environment())
        ports = {key: free_port() for key in ("management", "metrics", "grpc_management")}
        ports |= {"http": place.http_port, "grpc": place.grpc_port}
        batch = min(int(place.settings["batch"]), place.workload.batch)
        wait_ms = int(place.settings["wait_ms"])
        config = CONFIG.format(store=store, name=name, batch=batch, wait_ms=wait_ms, **ports)
        (place.scratch / "config.properties").write_text(config)
        command = [str(place.home / "bin/torchserve"), "--start", "--foreground", "--ncs"]
        command += [f"--ts-config={place.scratch / 'config.properties'}"]
        command += ["--disable-token-auth", f"--model-store={store}"]
        return Launch(
            command,
            place.environment(LOG_LOCATION=str(place.scratch), METRICS_LOCATION=str(place.scratch)),
        )

    def routes(self, place: Place) -> list[Route]:
        return [Route("HTTP", place.http_port, RawHttp(f"/predictions/{place.workload.name}"))]


PEER = TorchServe()
