import numpy as np
import pytest
from tests.support.models.python_files import TRITON_ADD_SUB
from tests.support.worker_host import MakeHost, make_host, request_bytes

from penstock.worker.wire import Kind

__all__ = ["make_host"]


def native(datatype: str, body: str = "return {'y': batch['x']}") -> str:
    return (
        f"import numpy as np\nclass Model:\n  inputs = {{'x': ({datatype}, (-1,))}}\n"
        f"  outputs = {{'y': ({datatype}, (-1,))}}\n  def predict(self, batch):\n    {body}\n"
    )


@pytest.mark.parametrize(
    "dtype",
    "bool u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8".split(),
)
def test_every_fixed_datatype_passes(make_host: MakeHost, dtype: str) -> None:
    host = make_host(native(f"np.dtype('{dtype}')"))
    assert host.start().kind is Kind.READY
    array = np.arange(6).reshape(2, 3).astype(dtype)
    host.run([array])
    ((code, _, (output,)),) = host.results(host.receive())
    assert (code, output.dtype) == (0, array.dtype)
    np.testing.assert_array_equal(output, array)


def test_bytes_are_bytes_objects_and_str_is_taken(make_host: MakeHost) -> None:
    body = "return {'y': np.array([[e.decode() + '!' for e in row] for row in batch['x']])}"
    host = make_host(native("bytes", body))
    assert host.start().kind is Kind.READY
    host.run([np.array([["grüß".encode(), b""]], dtype=object)])
    ((_, _, (output,)),) = host.results(host.receive())
    assert output.tolist() == [["grüß!".encode(), b"!"]]


def test_outputs_larger_than_the_slab_are_given_a_larger_one(make_host: MakeHost) -> None:
    host = make_host(native("np.float32"))
    assert host.start().kind is Kind.READY
    array = np.arange(10000, dtype=np.float32).reshape(1, -1)
    host.run([array])
    ((_, _, (output,)),) = host.results(host.receive())
    np.testing.assert_array_equal(output, array)


@pytest.mark.parametrize(
    ("shape", "has_room", "why"),
    [
        (1 << 30, True, f"outputs take at least {4 << 30} bytes, expected at most {2 << 30}"),
        (10000, False, "the server has no memory for outputs of "),
    ],
)
def test_outputs_without_room_fail_their_batch_alone(
    make_host: MakeHost, shape: int, has_room: bool, why: str
) -> None:
    body = f"x = batch['x']; return {{'y': np.broadcast_to(x, (1, {shape})) if x.any() else x}}"
    host = make_host(native("np.float32", body))
    assert host.start().kind is Kind.READY
    host.has_room = has_room
    host.run([np.ones((1, 1), np.float32)])
    ((code, text, _),) = host.results(host.receive())
    assert code == 8
    assert text.startswith(f"Failed to process the request(s) for model 'm', message: {why}")
    host.run([np.zeros((1, 1), np.float32)])
    ((code, _, (output,)),) = host.results(host.receive())
    assert (code, output.tolist()) == (0, [[0.0]])


def test_empty_tensors_pass(make_host: MakeHost) -> None:
    host = make_host(native("np.float32"))
    assert host.start().kind is Kind.READY
    host.run([np.zeros((2, 0), np.float32)])
    ((code, _, (output,)),) = host.results(host.receive())
    assert (code, output.shape) == (0, (2, 0))


def test_exception_is_an_internal_result_and_the_next_batch_runs(
    make_host: MakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host = make_host(
        native("np.float32", "return {'y': 1 / batch['x'] if batch['x'][0, 0] else x}")
    )
    assert host.start().kind is Kind.READY
    host.run([np.zeros((1, 1), np.float32)])
    ((code, text, _),) = host.results(host.receive())
    assert code == 13
    assert text == (
        "Failed to process the request(s) for model 'm', message: "
        "NameError: name 'x' is not defined"
    )
    assert "<3>Traceback" in capfd.readouterr().err
    host.run([np.ones((1, 1), np.float32)])
    assert host.results(host.receive())[0][0] == 0


def test_failing_load_is_told_with_its_type_and_text(make_host: MakeHost) -> None:
    host = make_host(native("np.float32") + "  def load(self, context): {}['weights']\n")
    reply = host.start()
    assert reply.kind is Kind.FAILED
    assert reply.body == b"KeyError: 'weights'"


def test_configuration_gives_what_the_class_leaves_out(make_host: MakeHost) -> None:
    source = "class Model:\n  def predict(self, batch):\n    return {'b': batch['a']}\n"
    tensor = {"data_type": "TYPE_INT32", "dims": [2]}
    config = {"input": [{"name": "a", **tensor}], "output": [{"name": "b", **tensor}]}
    host = make_host(source, {**config, "max_batch_size": 0})
    assert host.start().kind is Kind.READY
    host.run([np.array([1, 2], np.int32)])
    assert host.results(host.receive())[0][2][0].tolist() == [1, 2]


def test_triton_requests_are_cut_out_of_the_batch(make_host: MakeHost) -> None:
    host = make_host(TRITON_ADD_SUB)
    assert host.start().kind is Kind.READY
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    requests = [request_bytes(1, (0,)), request_bytes(2, (1, 0))]
    host.run([a, a], (0, 1), requests)
    first, second = host.results(host.receive())
    np.testing.assert_array_equal(first[2][0], 2 * a[:1])
    np.testing.assert_array_equal(second[2][0], np.zeros((2, 4)))
    np.testing.assert_array_equal(second[2][1], 2 * a[1:])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return {'y': [[1], [1, 2]]}", "output 'y' is no array: ValueError"),
        ("return {'y': np.zeros((1,) * 20, np.float32)}", "came with 20 dimensions, at most 16"),
        (
            "return {'y': np.zeros((1, 1), np.complex64)}",
            "came as numpy's complex64, expected FP32",
        ),
        ("return {'z': 1, 'w': 2}", "output 'y' is missing, the model gave 'z', 'w'"),
    ],
)
def test_output_that_cannot_be_sent_is_a_result(make_host: MakeHost, body: str, text: str) -> None:
    host = make_host(native("np.float32", body))
    assert host.start().kind is Kind.READY
    host.run([np.zeros((1, 1), np.float32)])
    ((code, got, _),) = host.results(host.receive())
    assert code == 13
    assert text in got


def test_output_there_is_no_memory_for_is_a_result_and_the_next_batch_runs(
    make_host: MakeHost,
) -> None:
    body = (
        "class Hog:\n      def __array__(self, *_, **__): raise MemoryError('hog')\n"
        "    return {'y': Hog() if batch['x'][0, 0] else batch['x']}"
    )
    host = make_host(native("np.float32", body))
    assert host.start().kind is Kind.READY
    host.run([np.ones((1, 1), np.float32)])
    assert "MemoryError: hog" in host.results(host.receive())[0][1]
    host.run([np.zeros((1, 1), np.float32)])
    assert host.results(host.receive())[0][0] == 0
