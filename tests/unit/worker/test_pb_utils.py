import numpy as np
import pytest

from penstock.worker import pb_utils
from penstock.worker.datatypes import BF16
from penstock.worker.pb_tensor import Tensor
from penstock.worker.wire import Request


def config() -> pb_utils.ModelConfig:
    return pb_utils.ModelConfig({"name": "m", "input": [], "output": []})


def request() -> pb_utils.InferenceRequest:
    made = Request(1, 0, 5, "id", (0,), {"k": "v", "n": 2})
    inputs = [pb_utils.Tensor("x", np.zeros((1, 2), np.float32))]
    return pb_utils.InferenceRequest.of(made, inputs, ["y"], None, lambda: False)


def test_tensor_tells_its_name_type_and_shape() -> None:
    tensor = pb_utils.Tensor("x", np.zeros((2, 3), np.int8))
    assert (tensor.name(), tensor.shape(), tensor.is_cpu()) == ("x", [2, 3], True)
    assert tensor.triton_dtype() == pb_utils.numpy_to_triton_type(np.int8)
    assert tensor.as_numpy().dtype == np.int8


def test_strings_become_objects() -> None:
    assert pb_utils.Tensor("x", np.array(["a"])).as_numpy().dtype == np.object_


def test_tensor_without_a_datatype_is_refused() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="complex128"):
        pb_utils.Tensor("x", np.zeros(1, np.complex128))


def test_dlpack_goes_both_ways_without_a_copy() -> None:
    array = np.arange(3, dtype=np.float32)
    tensor = pb_utils.Tensor.from_dlpack("x", pb_utils.Tensor("x", array))
    assert np.shares_memory(tensor.as_numpy(), array)
    with pytest.raises(pb_utils.TritonModelException, match="__dlpack__"):
        pb_utils.Tensor.from_dlpack("x", object())


def test_bf16_has_bits_and_no_numpy_type() -> None:
    tensor = Tensor.of("x", BF16, np.zeros(1, np.uint16))
    with pytest.raises(pb_utils.TritonModelException, match="BF16"):
        tensor.as_numpy()
    assert pb_utils.triton_string_to_numpy("TYPE_BF16") is None


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("TYPE_FP32", np.float32), ("TYPE_BOOL", np.bool_), ("TYPE_STRING", np.object_)],
)
def test_datatypes_by_their_names(name: str, dtype: type) -> None:
    assert pb_utils.triton_string_to_numpy(name) is dtype
    number = pb_utils.numpy_to_triton_type(dtype)
    assert pb_utils.triton_to_numpy_type(number) is dtype
    with pytest.raises(pb_utils.TritonModelException):
        pb_utils.triton_string_to_numpy("TYPE_FP8")


def test_bytes_are_serialized_and_back() -> None:
    elements = np.array([b"a", b"", b"\0\0"], dtype=np.object_)
    encoded = pb_utils.serialize_byte_tensor(elements)
    assert isinstance(encoded, bytes)
    assert pb_utils.deserialize_bytes_tensor(encoded).tolist() == elements.tolist()
    assert pb_utils.serialize_byte_tensor(np.empty(0, dtype=np.object_)) == ()
    assert pb_utils.serialize_byte_tensor(np.zeros(1)) is None


def test_numbers_of_datatypes_are_tritons() -> None:
    numbers = {name: pb_utils.numpy_to_triton_type(np.dtype(name)) for name in ("f2", "f4", "f8")}
    assert numbers == {"f2": 10, "f4": 11, "f8": 12}
    assert pb_utils.triton_to_numpy_type(13) is np.object_
    assert pb_utils.triton_to_numpy_type(14) is None  # BF16


def test_what_is_not_supported_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="MetricFamily is not supported"):
        pb_utils.MetricFamily  # noqa: B018


def test_written_batch_size_stays() -> None:
    made = pb_utils.ModelConfig({"name": "m", "max_batch_size": 0})
    made.set_max_batch_size(8)
    assert made.as_dict()["max_batch_size"] == 0


def test_request_tells_what_the_client_sent() -> None:
    made = request()
    assert made.request_id() == "id"
    assert made.timeout() == 5
    assert made.parameters() == '{"k": "v", "n": 2}'
    assert made.requested_output_names() == ["y"]
    assert made.correlation_id() == 0
    assert pb_utils.get_input_tensor_by_name(made, "x") is made.inputs()[0]
    assert pb_utils.get_input_tensor_by_name(made, "z") is None


def test_requests_to_other_models_are_refused_by_name() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="BLS"):
        pb_utils.InferenceRequest(model_name="other", inputs=[])
    with pytest.raises(pb_utils.TritonModelException, match="BLS"):
        request().exec()


def test_sender_is_for_decoupled_models_only() -> None:
    with pytest.raises(pb_utils.TritonModelException, match="not decoupled"):
        request().get_response_sender()


def test_response_holds_tensors_or_an_error() -> None:
    tensor = pb_utils.Tensor("y", np.zeros(1))
    response = pb_utils.InferenceResponse(output_tensors=[tensor])
    assert pb_utils.get_output_tensor_by_name(response, "y") is tensor
    assert not response.has_error()
    error = pb_utils.TritonError("no", pb_utils.TritonError.NOT_FOUND)
    failed = pb_utils.InferenceResponse(error=error)
    assert failed.error() is error
    assert (error.message(), error.code()) == ("no", 5)
    with pytest.raises(pb_utils.TritonModelException, match="expected Tensor"):
        pb_utils.InferenceResponse(output_tensors=[np.zeros(1)])  # type: ignore[list-item]


def test_sender_refuses_what_triton_refuses() -> None:
    sent: list[tuple[object, bool]] = []
    sender = pb_utils.InferenceResponseSender(
        lambda response, is_final: sent.append((response, is_final)), lambda: True
    )
    assert sender.is_cancelled()
    with pytest.raises(pb_utils.TritonModelException, match="Unsupported flag"):
        sender.send(flags=7)
    with pytest.raises(pb_utils.TritonModelException, match="without the final flag"):
        sender.send()
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    with pytest.raises(pb_utils.TritonModelException, match="closed"):
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    assert sent == [(None, True)]


def test_configuration_is_completed() -> None:
    made = config()
    made.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
    made.add_output({"name": "y", "data_type": "TYPE_STRING", "dims": [-1]})
    made.set_max_batch_size(4)
    made.set_dynamic_batching()
    made.set_model_transaction_policy({"decoupled": True})
    fields = made.as_dict()
    assert fields["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert fields["max_batch_size"] == 4
    assert fields["dynamic_batching"] == {}
    assert pb_utils.using_decoupled_model_transaction_policy(fields)
    assert pb_utils.get_output_config_by_name(fields, "y") == fields["output"][0]
    assert pb_utils.get_input_config_by_name(fields, "y") is None


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"name": "x", "data_type": "TYPE_FP32"}, "no property 'dims'"),
        ({"name": "x", "data_type": "TYPE_FP8", "dims": []}, "TYPE_FP8"),
        ({"name": "x", "data_type": "TYPE_FP32", "dims": [], "shape": 1}, "unknown properties"),
        ({"name": "a", "data_type": "TYPE_FP32", "dims": [2]}, "specified data_type 'TYPE_INT8'"),
    ],
)
def test_what_contradicts_the_configuration_is_refused(
    tensor: dict[str, object], text: str
) -> None:
    made = config()
    made.add_input({"name": "a", "data_type": "TYPE_INT8", "dims": [2]})
    with pytest.raises(ValueError, match=text):
        made.add_input(tensor)


def test_smaller_max_batch_size_than_written_is_refused() -> None:
    made = pb_utils.ModelConfig({"name": "m", "max_batch_size": 8})
    with pytest.raises(ValueError, match="specified max_batch_size 8"):
        made.set_max_batch_size(4)


def test_logger_writes_levels(capfd: pytest.CaptureFixture[str]) -> None:
    pb_utils.Logger.log_info("a\nb")
    pb_utils.Logger.log_warn("c")
    pb_utils.Logger.log_error("d")
    pb_utils.Logger.log_verbose("e")
    assert capfd.readouterr().err.splitlines() == ["<6>a", "<6>b", "<4>c", "<3>d", "<7>e"]


def test_from_dlpack_takes_tensors_and_capsules() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = pb_utils.Tensor("x", array)
    for source in (tensor, tensor.to_dlpack(), array, array.__dlpack__()):
        taken = pb_utils.Tensor.from_dlpack("y", source)
        assert np.shares_memory(taken.as_numpy(), array)
    used = tensor.to_dlpack()
    pb_utils.Tensor.from_dlpack("y", used)
    with pytest.raises(pb_utils.TritonModelException, match="tensor 'y' cannot be taken"):
        pb_utils.Tensor.from_dlpack("y", used)
