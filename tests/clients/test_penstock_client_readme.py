"""Runs every Python example of the client's README against a scripted server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fake_cupy import FakeCupy
from tests.support.fake_v2_server import FakeServer, echo

from penstock_client._messages import JOB_METHODS, JOB_SERVICE, jobs_pb, pb

pytestmark = pytest.mark.any_transport

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
CUPY = FakeCupy()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def place_of(region: str) -> Path:
    """The file of a region of shared memory, or of the one on the fake GPU."""
    path = Path("/dev/shm", region)
    blocks = CUPY.cuda.runtime.blocks
    return path if path.exists() else Path(next(iter(blocks.values()))[0])


def classify(request: Any, context: grpc.ServicerContext) -> Any:
    """The README's models: `digits` labels every row with 7, `upper` and `encoder` echo."""
    if request.model_name == "no-such-model":
        context.abort(
            grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'no-such-model' is not found"
        )
    if request.model_name != "digits":
        return echo(request, context)
    rows = request.inputs[0].shape[0]
    label = pb.ModelInferResponse.InferOutputTensor(name="label", datatype="INT64", shape=[rows])
    found = np.full(rows, 7, np.int64).tobytes()
    if request.outputs and (place := request.outputs[0].parameters):
        with place_of(place["shared_memory_region"].string_param).open("r+b") as region:
            region.seek(place["shared_memory_offset"].int64_param)
            region.write(found)
        found = b""
    return pb.ModelInferResponse(
        model_name="digits",
        model_version="1",
        id=request.id,
        outputs=[label],
        raw_output_contents=[found],
    )


def classify_stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    for request in requests:
        yield pb.ModelStreamInferResponse(infer_response=classify(request, context))


def describe() -> dict[str, Any]:
    """Answers to the README's questions about models."""
    tensor = pb.ModelMetadataResponse.TensorMetadata(name="X", datatype="FP32", shape=[-1, 64])
    entry = pb.RepositoryIndexResponse.ModelIndex(name="digits", version="1", state="READY")
    counts = pb.ModelStatistics(name="digits", inference_count=9, execution_count=2)
    return {
        "ModelMetadata": pb.ModelMetadataResponse(name="digits", inputs=[tensor]),
        "RepositoryIndex": pb.RepositoryIndexResponse(models=[entry]),
        "ModelStatistics": pb.ModelStatisticsResponse(model_stats=[counts]),
        "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterResponse(),
        "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterResponse(),
        "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterResponse(),
        "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterResponse(),
    }


def run_job() -> grpc.GenericRpcHandler[Any, Any]:
    """The README's job: half of it is done, then all."""
    submitted: list[Any] = []

    def submit(request: Any, context: grpc.ServicerContext) -> Any:
        submitted.append(jobs_pb.Job(id=request.id, spec=request.spec, state="QUEUED"))
        return submitted[0]

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        assert request.id == submitted[0].id
        for state, rows in (("RUNNING", 900), ("DONE", 1797)):
            yield jobs_pb.Job(id=request.id, state=state, rows=rows, rows_total=1797)

    def encode(message: Any) -> bytes:
        data: bytes = message.SerializeToString()
        return data

    unary = grpc.unary_unary_rpc_method_handler(
        submit, JOB_METHODS["Submit"].request.FromString, encode
    )
    stream = grpc.unary_stream_rpc_method_handler(
        watch, JOB_METHODS["Watch"].request.FromString, encode
    )
    handlers = {"Submit": unary, "Watch": stream}
    return grpc.method_handlers_generic_handler(JOB_SERVICE, handlers)


EXPECTED = [
    "[7 7 7]\ndigits 1 ['label']\n",
    "[" + "\n ".join([" ".join("7" * 37), " ".join("7" * 37), " ".join("7" * 26)]) + "]\n",
    "",
    "[7] True\n" * 10,
    "['grüße', 'tschüß']\n",
    "[7 7 7]\n",
    "[7 7 7]\n",
    None,
    "StatusCode.NOT_FOUND Request for unknown model: 'no-such-model' is not found "
    "no-such-model r1 {}\n",
    "digits 1 READY \n\nX FP32 (-1, 64)\n4.5 rows per batch\n",
    "RUNNING 900 of 1797\nDONE 1797 of 1797\n",
    "",
]


def test_every_example_has_its_expectation() -> None:
    assert len(EXAMPLES) == len(EXPECTED)


@pytest.mark.parametrize(("source", "expected"), list(zip(EXAMPLES, EXPECTED, strict=False)))
def test_example_runs_and_prints_what_it_should(
    source: str,
    expected: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", CUPY)
    services = (run_job(),)
    with FakeServer(classify, classify_stream, answers=describe(), services=services) as server:
        code = compile(source.replace("localhost:8001", server.url), str(README), "exec")
        exec(code, {"__name__": "example"})
    printed = capsys.readouterr().out
    if expected is None:  # the BF16 example: eight random values, rounded
        assert len(re.findall(r"-?\d+\.\d*", printed)) == 8
    else:
        assert printed == expected
