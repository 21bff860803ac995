"""A response that Python has no memory for: its request fails, and the next one is answered.

In a process of its own, which lowers its limit of address space while it takes the response.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

MODEL = """
import numpy as np

class Model:
    inputs = {"x": ("INT32", (1,))}
    outputs = {"y": ("FP32", (-1,))}
    max_batch_size = 0

    def predict(self, batch):
        yield {"y": np.ones(int(batch["x"][0]), np.float32)}
"""

SCRIPT = """
import resource, select, sys
from pathlib import Path
from tritonclient.grpc import service_pb2 as wire
from penstock import _core

package, repository = map(Path, sys.argv[1:])
engine = _core.Engine(backend_directories=[str(package / "backends")])
runtime = {"interpreter": sys.executable, "runtime": str(package / "worker" / "__main__.py")}
engine.set_backend_options("python", runtime)
model = engine.load_model(
    backend="python", model_name="m", version=1, path=str(repository / "m" / "1" / "model.py"),
    model_directory=str(repository / "m"), parameters={})
version = engine.create_version(model, _core.VersionSpec(
    model_name="m", version=1, inputs=[_core.InputSpec("x", "INT32", [1])],
    outputs=[_core.OutputSpec("y", "FP32", [-1])], max_batch_size=0, decoupled=True))
version.start()
engine.set_serving("m", [version])

def ask(values):
    message = wire.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="INT32", shape=[1])
    message.raw_input_contents.append(values.to_bytes(4, "little"))
    engine.infer(message.SerializeToString(), 0, object(), True)
    return engine.flush()

def rest(taken):
    while not taken or taken[-1][1] == -1:
        select.select([engine.completion_fd], [], [])
        taken += engine.take_completions()
    return taken

while early := ask(4 << 20):  # the response is to be there, and not taken yet
    rest(early)
select.select([engine.completion_fd], [], [])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 20), limits[1]))
taken = engine.take_completions()
resource.setrlimit(resource.RLIMIT_AS, limits)
for tag, code, payload, text in rest(taken):
    print(code, payload, text)
print([code for tag, code, payload, text in rest(ask(4))])
del version, model, engine
"""


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="the sanitizer's allocator ends a process that has no memory",
)
def test_response_without_memory_fails_its_request_only(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(MODEL)
    package = Path(penstock.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(package), str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(package.parent), "MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts, end, after = done.stdout.splitlines()
    assert parts == "-1 [] None"
    assert "no memory for a response of 167" in end and end.startswith("8 "), end  # 16 MiB
    assert after == "[-1, 0]"
