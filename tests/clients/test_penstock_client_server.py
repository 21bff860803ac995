"""penstock_client against `penstock serve` itself, with ONNX models made here."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InferRequest,
    InferResult,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    StreamResponseError,
    Tensor,
    UnavailableError,
)

DATATYPES: dict[str, tuple[int, Any]] = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}


def save_model(
    repository: Path, name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any]
) -> Path:
    """Writes `repository/name/1/model.onnx`; a tensor is (name, ONNX element type, shape)."""
    infos = [
        [helper.make_tensor_value_info(*tensor) for tensor in side] for side in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, name, infos[0], infos[1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    return folder.parent


def save_identity(repository: Path, datatype: str, element: int) -> None:
    node = helper.make_node("Identity", ["IN"], ["OUT"])
    inputs, outputs = ([(name, element, [None, None])] for name in ("IN", "OUT"))
    save_model(repository, f"identity_{datatype.lower()}", [node], inputs, outputs)


def save_simple(repository: Path) -> None:
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    inputs, outputs = (
        [(f"{side}{number}", TensorProto.INT32, [None, 16]) for number in range(2)]
        for side in ("INPUT", "OUTPUT")
    )
    save_model(repository, "simple", nodes, inputs, outputs)


def save_scores(repository: Path) -> None:
    node = helper.make_node("Identity", ["IN"], ["SCORES"])
    inputs, outputs = ([(name, TensorProto.FLOAT, [None, 3])] for name in ("IN", "SCORES"))
    folder = save_model(repository, "scores", [node], inputs, outputs)
    (folder / "labels.txt").write_text("zero\none\ntwo\n")
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime" max_batch_size: 8\n'
        'output [{ name: "SCORES" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }]\n'
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("repository")
    for datatype, (element, _) in DATATYPES.items():
        save_identity(folder, datatype, element)
    save_identity(folder, "BYTES", TensorProto.STRING)
    save_simple(folder)
    save_scores(folder)
    return folder


@pytest.fixture(scope="module")
def url(repository: Path, transport: str) -> Iterator[str]:
    """The address of a server in explicit mode, from when it says it is ready."""
    flags = [flag for side in ("grpc", "http", "metrics") for flag in (f"--{side}-port", "0")]
    flags += ["--model-control-mode", "explicit", "--load-model", "*"]
    flags += ["--shutdown-grace-secs", "0"]
    command = [sys.executable, "-m", "penstock", "serve", str(repository), *flags]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as server:
        assert server.stdout is not None
        log: list[str] = []
        for line in server.stdout:
            log.append(line)
            if found := re.search(r"is ready: gRPC (\S+?),", line):
                yield found[1]
                break
        else:
            pytest.fail(f"the server ended before it was ready:\n{''.join(log)}")
        server.terminate()
        server.communicate()
    assert server.returncode == 0


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as opened:
        yield opened


def rows(count: int, start: int = 0) -> Any:
    return np.arange(start, start + count * 16, dtype=np.int32).reshape(count, 16)


def simple(number: int, **changes: Any) -> InferRequest:
    inputs = {"INPUT0": rows(1, number), "INPUT1": rows(1)}
    return InferRequest("simple", **{"inputs": inputs, "request_id": str(number), **changes})


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back_as_it_was_sent(client: Client, datatype: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(DATATYPES[datatype][1])
    result = client.infer(f"identity_{datatype.lower()}", {"IN": array})
    assert result["OUT"].dtype == array.dtype
    np.testing.assert_array_equal(result["OUT"], array)


def test_text_and_bytes_come_back_as_bytes(client: Client) -> None:
    text = np.array([["gr\u00fc\u00dfe", b"\0\xff", ""]], object)
    result = client.infer("identity_bytes", {"IN": text})
    assert result["OUT"].tolist() == [["gr\u00fc\u00dfe".encode(), b"\0\xff", b""]]


def test_float_sent_as_bf16_is_rounded_once(client: Client) -> None:
    values = np.array([[1.0, 1.00390625, -3.140625]], np.float32)
    result = client.infer("identity_bf16", {"IN": Tensor(values, "BF16")})
    np.testing.assert_array_equal(result["OUT"], values.astype(ml_dtypes.bfloat16))


def test_outputs_can_be_chosen_and_the_id_comes_back(client: Client) -> None:
    inputs = {"INPUT0": rows(2, 5), "INPUT1": rows(2)}
    result = client.infer("simple", inputs, outputs=["OUTPUT1"], request_id="r9", version="1")
    assert list(result) == ["OUTPUT1"]
    assert (result["OUTPUT1"] == 5).all()
    assert (result.id, result.model_version) == ("r9", "1")


def test_classification_names_the_best_classes(client: Client) -> None:
    scores = np.array([[0.25, 0.5, 0.125]], np.float32)
    result = client.infer("scores", {"IN": scores}, classification={"SCORES": 2})
    best = [value.decode().split(":")[1:] for value in result["SCORES"].ravel()]
    assert best == [["1", "one"], ["0", "zero"]]


@pytest.mark.parametrize(
    ("request_", "error", "fragment"),
    [
        pytest.param(
            InferRequest("nobody", {"x": rows(1)}),
            NotFoundError,
            "Request for unknown model: 'nobody' is not found",
            id="unknown-model",
        ),
        pytest.param(
            simple(0, version="99"),
            NotFoundError,
            "Request for unknown model: 'simple' version 99 is not found",
            id="unknown-version",
        ),
        pytest.param(
            simple(0, inputs={"INPUT0": rows(1), "INPUT1": rows(1).astype(np.int64)}),
            InvalidArgumentError,
            "inference input 'INPUT1' data-type is 'INT64', but model 'simple' expects 'INT32'",
            id="datatype",
        ),
        pytest.param(
            simple(0, inputs={"INPUT0": rows(1), "INPUT1": rows(1)[:, :3]}),
            InvalidArgumentError,
            "unexpected shape for input 'INPUT1' for model 'simple'",
            id="shape",
        ),
        pytest.param(
            simple(0, inputs={"INPUT0": rows(1)}),
            InvalidArgumentError,
            "expected 2 inputs but got 1 inputs for model",
            id="missing-input",
        ),
    ],
)
def test_bad_request_is_a_typed_error(
    client: Client, request_: InferRequest, error: Any, fragment: str
) -> None:
    with pytest.raises(error, match=re.escape(fragment)):
        client.infer(request_.model, request_.inputs, version=request_.version)


def test_tiny_deadline_is_exceeded(client: Client) -> None:
    with pytest.raises(DeadlineExceededError):
        client.infer("simple", simple(0).inputs, deadline_s=1e-9)


def test_stream_answers_in_order_and_outlives_a_failure(client: Client) -> None:
    requests = [simple(0), simple(1, inputs={"INPUT0": rows(1)}), simple(2)]
    first, failed, last = client.stream(requests)
    assert isinstance(first, InferResult)
    assert isinstance(failed, StreamResponseError)
    assert isinstance(last, InferResult)
    assert (first.id, failed.request_id, last.id) == ("0", "1", "2")
    assert "expected 2 inputs but got 1 inputs" in failed.message
    assert (last["OUTPUT1"] == 2).all()


def test_stream_that_raises_gets_the_real_status(client: Client) -> None:
    requests = [simple(0), simple(1, inputs={"INPUT0": rows(1)}), simple(2)]
    stream = client.stream(requests, raise_errors=True)
    assert next(stream).id == "0"
    with pytest.raises(InvalidArgumentError, match="expected 2 inputs but got 1 inputs"):
        next(stream)


async def test_many_concurrent_requests_each_get_their_own_answer(url: str) -> None:
    async with AsyncClient(url) as client:
        stream = client.stream(simple(number) for number in range(200))
        answers = [item async for item in stream]
        single = await client.infer("simple", simple(7).inputs)
    assert [int(a["OUTPUT1"][0, 0]) for a in answers if isinstance(a, InferResult)] == [*range(200)]
    assert int(single["OUTPUT1"][0, 0]) == 7


def test_server_and_models_describe_themselves(client: Client) -> None:
    assert client.server_live()
    assert client.server_ready()
    assert client.model_ready("simple")
    assert client.model_ready("simple", "1")
    assert not client.model_ready("nobody")
    assert "statistics" in client.server_metadata().extensions
    metadata = client.model_metadata("simple")
    assert [(t.name, t.datatype, t.shape) for t in metadata.inputs] == [
        ("INPUT0", "INT32", (-1, 16)),
        ("INPUT1", "INT32", (-1, 16)),
    ]
    config = client.model_config("scores")
    assert (config["name"], config["max_batch_size"]) == ("scores", 8)
    assert config["output"][0]["label_filename"] == "labels.txt"
    with pytest.raises(NotFoundError):
        client.model_metadata("nobody")


def test_statistics_count_requests(client: Client) -> None:
    (before,) = client.statistics("simple")
    client.infer("simple", {"INPUT0": rows(3), "INPUT1": rows(3)})
    (after,) = client.statistics("simple")
    assert after.inference_count - before.inference_count == 3
    assert after.success.count - before.success.count == 1
    assert after.success.total_ns > before.success.total_ns


def test_models_are_unloaded_and_loaded_anew(client: Client) -> None:
    client.unload_model("identity_int8")
    assert not client.model_ready("identity_int8")
    with pytest.raises((NotFoundError, UnavailableError), match="identity_int8"):
        client.infer("identity_int8", {"IN": np.zeros((1, 1), np.int8)})
    client.load_model("identity_int8", config={"max_batch_size": 3})
    assert client.model_config("identity_int8")["max_batch_size"] == 3
    states = {m.name: m.state for m in client.repository_index(ready_only=True)}
    assert states["identity_int8"] == "READY"
    client.load_model("identity_int8")


def test_load_of_nothing_says_so(client: Client) -> None:
    with pytest.raises(InternalError, match="failed to load 'nobody', failed to poll"):
        client.load_model("nobody")
