"""Triton 2.51 of the wheel nvidia-pytriton, its Python backend with ONNX Runtime.

No other backend is in the wheel, and Triton's own are on no package registry. Built from its
source its C++ OpenVINO backend takes about half of the CPU time (54 us against 106 on another
machine).
"""

from __future__ import annotations

import shutil
import sys
import sysconfig

from peers.peer import IMAGE_BATCHES, MODELS, ORT, Launch, Peer, Place, Route
from peers.protocols import OpenInferenceGrpc, OpenInferenceHttp

CONFIG = """\
backend: "python"
max_batch_size: {batch:.0f}
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: {shape} }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {width} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: {wait_us} }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""


class Triton(Peer):
    """Dynamic batching without a delay: the instance takes what waits, a lone request at once."""

    name = "triton"
    # numpy 2's tensors come to this Python backend empty, without an error.
    packages = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", ORT)
    pip_flags = ("--no-deps",)
    image_variants = {"batches of 8, no delay": {"wait_ms": 0}, **IMAGE_BATCHES}
    notes = (
        "Python backend (the only one in a wheel), dynamic batching, one instance; digits: batches "
        "of 64, no delay"
    )
    wins = {
        "start": "its server is C++ and imports Python only in the model's process",
        "HTTP": "its HTTP front is C++, Penstock's is Python",
    }

    def launch(self, place: Place) -> Launch:
        version = place.scratch / "models" / place.workload.name / "1"
        version.mkdir(parents=True)
        shutil.copy(MODELS / "triton_model.py", version / "model.py")
        work = place.workload
        batch = place.settings.get("batch", work.batch)
        wait_us = int(1000 * place.settings.get("wait_ms", 0))
        fields = {"batch": batch, "wait_us": wait_us, "input": work.input, "output": work.output}
        fields |= {"shape": list(work.rows.shape[1:]), "width": work.answers.shape[1]}
        (version.parent / "config.pbtxt").write_text(CONFIG.format(**fields))
        site = next(place.home.glob("lib/python*/site-packages"))
        package = site / "pytriton" / "tritonserver"
        backend = place.scratch / "backends" / "python"
        shutil.copytree(package / "backends" / "python", backend)
        number = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copytree(package / "python_backend_stubs" / number, backend, dirs_exist_ok=True)
        libraries = [str(site / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
        environment = place.environment(LD_LIBRARY_PATH=":".join(libraries), PYTHONPATH=str(site))
        command = [str(package / "bin/tritonserver"), f"--model-repository={version.parents[1]}"]
        command += [f"--backend-directory={backend.parent}", "--allow-metrics=false"]
        for kind, port in (("grpc", place.grpc_port), ("http", place.http_port)):
            command += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={port}"]
        return Launch(command, environment)

    def routes(self, place: Place) -> list[Route]:
        return [
            Route("gRPC", place.grpc_port, OpenInferenceGrpc()),
            Route("HTTP", place.http_port, OpenInferenceHttp()),
        ]


PEER = Triton()
