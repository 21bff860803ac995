"""tritonclient over HTTP, sync and aio, unchanged: it infers, asks and controls."""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import ml_dtypes
import numpy as np
import pytest
from tests.support.fixture_models import write_repeat
from tests.support.models import onnx_files
from tests.support.server_process import Served, served
from tests.support.triton_clients import FACES
from tests.support.triton_http import http_client, http_tensor
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

pytestmark = pytest.mark.any_transport

NUMBERS: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
}
BINARY_ONLY = ("FP16", "BF16")
SCORES = """
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_all(repository)
    scores = onnx_files.identity("FP32", ["batch", 3])
    folder = onnx_files.write_model(repository, "scores", scores, config=SCORES)
    (folder / "labels.txt").write_text("cat\ndog\nfish\n")
    write_repeat(repository)
    flags = ["--model-control-mode", "explicit", "--load-model", "*", "--allow-client-shm=true"]
    with served(repository, *flags) as running:
        yield running


@pytest.fixture(params=FACES)
def client(server: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    with http_client(request.param, server.http) as connected:
        yield connected


def refusal(call: Any, *args: Any, **options: Any) -> tuple[str, str]:
    """Status and text of a call that must fail."""
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **options)
    return caught.value.status(), caught.value.message()


def simple(start: int = 0, *, binary: bool = True) -> list[InferInput]:
    numbers = np.arange(start, start + 16, dtype=np.int32).reshape(1, 16)
    ones = np.ones((1, 16), np.int32)
    return [
        http_tensor("INPUT0", numbers, "INT32", binary=binary),
        http_tensor("INPUT1", ones, "INT32", binary=binary),
    ]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back_as_it_was_sent(client: Any, datatype: str, binary: bool) -> None:
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(NUMBERS[datatype])
    model = f"identity_{datatype.lower()}"
    if not binary and datatype in BINARY_ONLY:
        with pytest.raises(InferenceServerException):  # of BF16 the client itself refuses it
            client.infer(model, [http_tensor("INPUT0", array, datatype, binary=False)])
        return
    outputs = [InferRequestedOutput("OUTPUT0", binary_data=binary)]
    result = client.infer(
        model, [http_tensor("INPUT0", array, datatype, binary=binary)], outputs=outputs
    )
    assert result.get_output("OUTPUT0")["datatype"] == datatype
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0").astype(array.dtype), array)


@pytest.mark.parametrize("binary", [True, False])
def test_text_comes_back(client: Any, binary: bool) -> None:
    array = np.array([["gr\u00fc\u00dfe", "", "x" * 5000]], object)
    outputs = [InferRequestedOutput("OUTPUT0", binary_data=binary)]
    sent = [http_tensor("INPUT0", array, "BYTES", binary=binary)]
    found = client.infer("identity_bytes", sent, outputs=outputs).as_numpy("OUTPUT0")
    texts = [each.decode() if isinstance(each, bytes) else each for each in found.ravel()]
    assert texts == array.ravel().tolist()


def test_half_precision_as_json_asks_for_binary_data(client: Any) -> None:
    sent = [http_tensor("INPUT0", np.ones((1, 2), np.float16), "FP16")]
    outputs = [InferRequestedOutput("OUTPUT0", binary_data=False)]
    status, text = refusal(client.infer, "identity_fp16", sent, outputs=outputs)
    assert status == "400" and "Please use the binary data format for output" in text


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_both_ways_compressed(client: Any, algorithm: str) -> None:
    array = np.zeros((1, 5000), np.float32)
    result = client.infer(
        "identity_fp32",
        [http_tensor("INPUT0", array, "FP32")],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # aiohttp's
def test_large_tensor_comes_back(client: Any) -> None:
    array = np.random.default_rng(0).random((1, 2_000_000), np.float32)
    result = client.infer("identity_fp32", [http_tensor("INPUT0", array, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_id_is_echoed_and_parameters_are_taken(client: Any) -> None:
    result = client.infer(
        "simple", simple(), request_id="a 7", priority=0, timeout=1_000_000, parameters={"mine": 1}
    )
    assert result.get_response()["id"] == "a 7"


def test_classes_come_with_labels(client: Any) -> None:
    array = np.array([[0.1, 0.7, 0.2]], np.float32)
    for binary in (True, False):
        outputs = [InferRequestedOutput("OUTPUT0", binary_data=binary, class_count=2)]
        sent = [http_tensor("INPUT0", array, "FP32")]
        found = client.infer("scores", sent, outputs=outputs).as_numpy("OUTPUT0")
        words = [each.decode() if isinstance(each, bytes) else each for each in found.ravel()]
        assert [each.split(":")[1:] for each in words] == [["1", "dog"], ["2", "fish"]]


def test_raw_binary_request(server: Served) -> None:
    array = np.arange(3, dtype=np.float32)
    with InferenceServerClient(server.http) as client:
        headers = {"Inference-Header-Content-Length": "0"}
        reply = client._post("v2/models/scores/infer", array.tobytes(), headers, None)
        size = int(reply.get("inference-header-content-length"))
        body = reply.read()
    assert json.loads(body[:size])["outputs"][0]["shape"] == [1, 3]
    assert body[size:] == array.tobytes()


def test_static_request_and_response_bodies(server: Served) -> None:
    body, size = InferenceServerClient.generate_request_body(simple())
    with InferenceServerClient(server.http) as client:
        headers = {"Inference-Header-Content-Length": str(size), "Content-Encoding": "gzip"}
        reply = client._post("v2/models/simple/infer", gzip.compress(body), headers, None)
        data = reply.read()
        length = int(reply.get("inference-header-content-length") or 0) or None
    result = InferenceServerClient.parse_response_body(data, header_length=length)
    assert result.as_numpy("OUTPUT0").tolist() == [list(range(1, 17))]


def test_async_infer_of_the_sync_client(server: Served) -> None:
    with InferenceServerClient(server.http, concurrency=4) as client:
        waiting = [client.async_infer("simple", simple(number)) for number in range(20)]
        firsts = [each.get_result().as_numpy("OUTPUT0")[0, 0] for each in waiting]
    assert firsts == list(range(1, 21))


@pytest.mark.parametrize(
    ("model", "inputs", "status", "words"),
    [
        ("nobody", 2, "404", "Request for unknown model: 'nobody' is not found"),
        ("simple", 1, "400", "expected 2 inputs but got 1 inputs for model 'simple'"),
        ("repeat_int32", 0, "501", "HTTP end point doesn't support models with decoupled"),
    ],
)
def test_refusals_have_tritons_status_and_words(
    client: Any, model: str, inputs: int, status: str, words: str
) -> None:
    found, text = refusal(client.infer, model, simple()[:inputs])
    assert (found, words in text) == (status, True), text


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("simple") and client.is_model_ready("simple", "1")
    assert not client.is_model_ready("simple", "2") and not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "penstock"
    metadata = client.get_model_metadata("simple", "1", query_params={"test": 1})
    assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
    config = client.get_model_config("simple")
    assert config["max_batch_size"] > 0 and config["input"][0]["data_type"] == "TYPE_INT32"


def test_statistics_count_what_was_inferred(client: Any) -> None:
    def count() -> int:
        (stats,) = client.get_inference_statistics("simple")["model_stats"]
        found: int = stats["inference_stats"]["success"]["count"]
        return found

    before = count()
    client.infer("simple", simple())
    assert count() == before + 1
    names = {each["name"] for each in client.get_inference_statistics()["model_stats"]}
    assert {"simple", "scores"} <= names


def test_models_are_loaded_and_unloaded(client: Any) -> None:
    client.unload_model("scores")
    assert not client.is_model_ready("scores")
    client.load_model("scores", config=json.dumps({"backend": "onnxruntime", "max_batch_size": 4}))
    assert client.get_model_config("scores")["max_batch_size"] == 4
    client.load_model("scores")
    assert client.get_model_config("scores")["max_batch_size"] == 8
    states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert states["scores"] == "READY"
    status, text = refusal(client.load_model, "nobody")
    assert (status, text.startswith("failed to load 'nobody'")) == ("500", True)


def test_settings(client: Any) -> None:
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0
    assert client.get_log_settings()["log_info"] is True
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.update_trace_settings(model_name="simple", settings={"trace_rate": "1000"})
    status, _ = refusal(client.update_trace_settings, settings={"trace_level": ["TIMESTAMPS"]})
    assert status == "501"


def test_tensors_in_shared_memory(client: Any) -> None:
    array = np.arange(4, dtype=np.float32).reshape(1, 4)
    key = f"/penstock-{uuid4().hex}"
    handle = shm.create_shared_memory_region("unused", key, 2 * array.nbytes)
    try:
        shm.set_shared_memory_region(handle, [array])
        client.register_system_shared_memory("both", key, 2 * array.nbytes)
        (status,) = client.get_system_shared_memory_status()
        assert (status["name"], status["byte_size"]) == ("both", 2 * array.nbytes)
        sent = InferInput("INPUT0", [1, 4], "FP32")
        sent.set_shared_memory("both", array.nbytes)
        wanted = InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory("both", array.nbytes, offset=array.nbytes)
        result = client.infer("identity_fp32", [sent], outputs=[wanted])
        output = result.get_output("OUTPUT0")
        assert "data" not in output and "parameters" not in output  # or C++ clients fail
        found = shm.get_contents_as_numpy(handle, np.float32, [1, 4], offset=array.nbytes)
        np.testing.assert_array_equal(found, array)
        client.unregister_system_shared_memory("both")
        assert client.get_system_shared_memory_status() == []
        assert client.get_cuda_shared_memory_status() == []
        client.unregister_cuda_shared_memory()
    finally:
        shm.destroy_shared_memory_region(handle)
