"""Runs every Python example of the client's README against a scripted server."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.fake_v2_server import FakeServer, echo

from penstock_client._messages import pb

pytestmark = pytest.mark.any_transport

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


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
        with open(f"/dev/shm/{place['shared_memory_region'].string_param}", "r+b") as region:
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
    }


EXPECTED = [
    "[7 7 7]\ndigits 1 ['label']\n",
    "[" + "\n ".join([" ".join("7" * 37), " ".join("7" * 37), " ".join("7" * 26)]) + "]\n",
    "",
    "[7] True\n" * 10,
    "['grüße', 'tschüß']\n",
    "[7 7 7]\n",
    None,
    "StatusCode.NOT_FOUND Request for unknown model: 'no-such-model' is not found "
    "no-such-model r1 {}\n",
    "digits 1 READY \nX FP32 (-1, 64)\n4.5 rows per batch\n",
    "",
]


def test_every_example_has_its_expectation() -> None:
    assert len(EXAMPLES) == len(EXPECTED)


@pytest.mark.parametrize(("source", "expected"), list(zip(EXAMPLES, EXPECTED, strict=False)))
def test_example_runs_and_prints_what_it_should(
    source: str, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(classify, classify_stream, answers=describe()) as server:
        code = compile(source.replace("localhost:8001", server.url), str(README), "exec")
        exec(code, {"__name__": "example"})
    printed = capsys.readouterr().out
    if expected is None:  # the BF16 example: eight random values, rounded
        assert len(re.findall(r"-?\d+\.\d*", printed)) == 8
    else:
        assert printed == expected
