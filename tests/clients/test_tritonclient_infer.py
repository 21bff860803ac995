"""tritonclient infers, sync and aio: every datatype and every option of a request."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.support.fixture_models import write_blocked
from tests.support.models import onnx_files
from tests.support.server_process import served
from tests.support.triton_clients import FACES, simple_inputs, tensor, triton_client
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

PRIORITIES = """
max_batch_size: 8
dynamic_batching { priority_levels: 2 default_priority_level: 2 }
"""

SCORES = """
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
"""

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


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    onnx_files.write_all(repository)
    onnx_files.write_model(repository, "prioritised", onnx_files.simple(), config=PRIORITIES)
    scores = onnx_files.identity("FP32", ["batch", 3])
    folder = onnx_files.write_model(repository, "scores", scores, config=SCORES)
    (folder / "labels.txt").write_text("cat\ndog\nfish\n")
    with served(repository) as server:
        yield server.grpc


@pytest.fixture(params=FACES)
def client(url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with triton_client(request.param, url) as connected:
        yield connected


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_datatype_comes_back_as_it_was_sent(client: Any, datatype: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 1]]).astype(NUMBERS[datatype])
    model = f"identity_{datatype.lower()}"
    result = client.infer(model, [tensor("INPUT0", array, datatype)])
    assert result.get_output("OUTPUT0").datatype == datatype
    found = result.as_numpy("OUTPUT0")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_bytes_come_back_as_bytes(client: Any) -> None:
    array = np.array([[b"\0\xff", b"", b"x" * 5000], ["gr\u00fc\u00dfe", "a", "b"]], object)
    result = client.infer("identity_bytes", [tensor("INPUT0", array, "BYTES")])
    expected = [[b"\0\xff", b"", b"x" * 5000], ["gr\u00fc\u00dfe".encode(), b"a", b"b"]]
    assert result.as_numpy("OUTPUT0").tolist() == expected


def test_non_finite_floats_pass_through(client: Any) -> None:
    array = np.array([[np.inf, -np.inf, np.nan, -0.0]], np.float32)
    result = client.infer("identity_fp32", [tensor("INPUT0", array, "FP32")])
    assert result.as_numpy("OUTPUT0").tobytes() == array.tobytes()


def test_row_of_no_elements_comes_back_empty(client: Any) -> None:
    array = np.zeros((2, 0), np.float32)
    result = client.infer("identity_fp32", [tensor("INPUT0", array, "FP32")])
    assert result.as_numpy("OUTPUT0").shape == (2, 0)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_are_answered_in_their_order(client: Any, rows: int) -> None:
    result = client.infer("simple", simple_inputs(rows))
    numbers = np.arange(rows * 16).reshape(rows, 16)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), numbers + 1)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), numbers - 1)


def test_text_sums_of_simple_string(client: Any) -> None:
    numbers = np.array([[str(n) for n in range(16)]], object)
    inputs = [tensor(f"INPUT{n}", numbers, "BYTES") for n in range(2)]
    result = client.infer("simple_string", inputs)
    assert result.as_numpy("OUTPUT0").tolist() == [[str(2 * n).encode() for n in range(16)]]


def test_only_requested_outputs_are_sent(client: Any) -> None:
    result = client.infer("simple", simple_inputs(), outputs=[InferRequestedOutput("OUTPUT1")])
    assert [each.name for each in result.get_response().outputs] == ["OUTPUT1"]
    assert result.as_numpy("OUTPUT0") is None
    assert result.as_numpy("OUTPUT1").tolist() == [[n - 1 for n in range(16)]]


def test_requested_outputs_come_with_their_own_contents_in_any_order(client: Any) -> None:
    names = ["OUTPUT1", "OUTPUT0"]
    outputs = [InferRequestedOutput(name) for name in names]
    result = client.infer("simple", simple_inputs(), outputs=outputs)
    assert result.as_numpy("OUTPUT0").tolist() == [[n + 1 for n in range(16)]]
    assert result.as_numpy("OUTPUT1").tolist() == [[n - 1 for n in range(16)]]


def test_id_and_version_are_echoed(client: Any) -> None:
    result = client.infer("simple", simple_inputs(), request_id="my id \u00e9", model_version="1")
    response = result.get_response(as_json=True)
    assert response["id"] == "my id \u00e9"
    assert (response["model_name"], response["model_version"]) == ("simple", "1")


def test_classification_gives_value_index_and_label(client: Any) -> None:
    rows = np.array([[0.25, 0.5, 0.125], [4.0, -1.0, 5.0]], np.float32)
    outputs = [InferRequestedOutput("OUTPUT0", class_count=2)]
    result = client.infer("scores", [tensor("INPUT0", rows, "FP32")], outputs=outputs)
    found = [text.decode().split(":") for text in result.as_numpy("OUTPUT0").ravel()]
    assert [float(value) for value, _, _ in found] == [0.5, 0.25, 5.0, 4.0]
    assert [rest for _, *rest in found] == [["1", "dog"], ["0", "cat"], ["2", "fish"], ["0", "cat"]]
    assert result.get_output("OUTPUT0").datatype == "BYTES"


def test_more_classes_than_there_are_means_all(client: Any) -> None:
    row = np.array([[1, 2, 3]], np.float32)
    outputs = [InferRequestedOutput("OUTPUT0", class_count=99)]
    result = client.infer("scores", [tensor("INPUT0", row, "FP32")], outputs=outputs)
    assert result.as_numpy("OUTPUT0").shape == (1, 3)


@pytest.mark.parametrize("priority", [1, 2, 7])
def test_priority_is_accepted_also_beyond_the_levels(client: Any, priority: int) -> None:
    result = client.infer("prioritised", simple_inputs(), priority=priority)
    assert result.as_numpy("OUTPUT0").tolist() == [[n + 1 for n in range(16)]]


def test_options_that_change_nothing_here_are_accepted(client: Any) -> None:
    options = {
        "timeout": 60_000_000,
        "client_timeout": 60.0,
        "headers": {"test": "1", "dummy": "2"},
        "parameters": {"number": 1, "text": "s", "flag": True, "ratio": 0.5},
    }
    result = client.infer("simple", simple_inputs(), **options)
    assert result.as_numpy("OUTPUT0").tolist() == [[n + 1 for n in range(16)]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_request_is_accepted(client: Any, algorithm: str) -> None:
    array = np.zeros((4, 50_000), np.float32)
    inputs = [tensor("INPUT0", array, "FP32")]
    result = client.infer("identity_fp32", inputs, compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_message_over_grpcs_usual_limit_comes_back(client: Any) -> None:
    array = np.arange(3_000_000, dtype=np.float32).reshape(2, -1)
    result = client.infer("identity_fp32", [tensor("INPUT0", array, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


def test_inputs_can_be_reused_for_another_request(client: Any) -> None:
    inputs = simple_inputs()
    client.infer("simple", inputs)
    inputs[0].set_data_from_numpy(np.full((1, 16), 41, np.int32))
    assert client.infer("simple", inputs).as_numpy("OUTPUT0").tolist() == [[42] * 16]


def test_fixed_shape_model_takes_no_batch_dimension(client: Any) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    result = client.infer("no_batch", [tensor("INPUT0", array, "FP32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), array)


@pytest.mark.parametrize("face", FACES)
def test_client_timeout_is_deadline_exceeded(face: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_blocked(tmp_path / "models", gate)
    row = tensor("INPUT0", np.ones((1, 4), np.float32), "FP32")
    with served(tmp_path / "models") as server, triton_client(face, server.grpc) as client:
        with pytest.raises(InferenceServerException, match="Deadline Exceeded") as caught:
            client.infer("blocked", [row], client_timeout=0.2)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        gate.touch()
        assert client.infer("blocked", [row]).as_numpy("OUTPUT0").tolist() == [[1.0] * 4]


@pytest.mark.parametrize("face", FACES)
def test_reserved_parameter_never_leaves_the_client(face: str, url: str) -> None:
    with triton_client(face, url) as client:
        with pytest.raises(InferenceServerException, match="reserved parameter"):
            client.infer("simple", simple_inputs(), parameters={"triton_x": 1})


def test_input_without_data_is_refused_by_the_server(client: Any) -> None:
    bare = InferInput("INPUT0", [1, 16], "INT32")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("simple", [bare, simple_inputs()[1]])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
