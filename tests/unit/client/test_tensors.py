"""numpy to wire and back, for every datatype, and what is refused."""

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from penstock_client import ProtocolError, TensorError, tensors
from penstock_client.tensors import Tensor, WireTensor, array_of_contents, decode, encode

WHERE = "input 'x' of model 'm'"

FIXED = [
    ("BOOL", np.bool_),
    ("UINT8", np.uint8),
    ("UINT16", np.uint16),
    ("UINT32", np.uint32),
    ("UINT64", np.uint64),
    ("INT8", np.int8),
    ("INT16", np.int16),
    ("INT32", np.int32),
    ("INT64", np.int64),
    ("FP16", np.float16),
    ("BF16", ml_dtypes.bfloat16),
    ("FP32", np.float32),
    ("FP64", np.float64),
]


@pytest.fixture
def without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A world where `import ml_dtypes` fails, as it does where the package is not installed."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensors._bfloat16_dtype.cache_clear()
    yield
    tensors._bfloat16_dtype.cache_clear()


@pytest.mark.parametrize(("datatype", "dtype"), FIXED)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_fixed_size_datatype_round_trips(datatype: str, dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape).astype(dtype)
    wire = encode(array, WHERE)
    assert (wire.datatype, wire.shape) == (datatype, shape)
    back = decode(wire, WHERE)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back, array)


def test_wire_bytes_are_little_endian_and_row_major() -> None:
    big_endian = np.array([[1, 2], [3, 4]], ">i2")
    assert encode(big_endian, WHERE).raw == b"\x01\0\x02\0\x03\0\x04\0"
    assert encode(big_endian.T, WHERE).raw == b"\x01\0\x03\0\x02\0\x04\0"
    assert encode(np.asfortranarray(big_endian), WHERE).raw == encode(big_endian, WHERE).raw


def test_strided_view_is_sent_as_its_elements() -> None:
    assert encode(np.arange(6, dtype=np.uint8)[::-2], WHERE).raw == b"\x05\x03\x01"


def test_nan_payload_and_infinities_pass_through() -> None:
    bits = np.array([0x7FC00001, 0x7F800000, 0xFF800000, 0x80000000], np.uint32)
    wire = encode(bits.view(np.float32), WHERE)
    np.testing.assert_array_equal(decode(wire, WHERE).view(np.uint32), bits)


def test_decoded_array_is_a_view_that_cannot_be_written() -> None:
    array = decode(WireTensor("INT8", (2,), b"ab"), WHERE)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_object_with_an_array_interface_is_taken() -> None:
    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.ones(2, np.float32)

    assert encode(Foreign(), WHERE).datatype == "FP32"
    assert encode(np.float32(1), WHERE).shape == ()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(np.array([b"a", "\u00e9", b""], object), id="object"),
        pytest.param(np.array(["a", "\u00e9", ""]), id="unicode"),
        pytest.param(np.array(["a", "\u00e9", ""], np.dtypes.StringDType()), id="string-dtype"),
        pytest.param(np.array([b"a", "\u00e9".encode(), b""], "S2"), id="fixed-width"),
    ],
)
def test_bytes_from_each_kind_of_array(value: Any) -> None:
    wire = encode(value, WHERE)
    assert wire == WireTensor("BYTES", (3,), b"\x01\0\0\0a\x02\0\0\0\xc3\xa9\0\0\0\0")
    assert decode(wire, WHERE).tolist() == [b"a", b"\xc3\xa9", b""]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 2)])
def test_bytes_keep_their_shape(shape: tuple[int, ...]) -> None:
    back = decode(encode(np.full(shape, b"v", object), WHERE), WHERE)
    assert back.dtype == object
    assert back.shape == shape
    assert back.ravel().tolist() == [b"v"] * back.size


def test_bytes_with_trailing_nul_survive_in_an_object_array() -> None:
    array = np.array([b"a\0", b"\0"], object)
    assert decode(encode(array, WHERE), WHERE).tolist() == [b"a\0", b"\0"]


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        pytest.param([1, 2], "got a list, expected a numpy array", id="list"),
        pytest.param(np.zeros(1, complex), "numpy dtype 'complex128' has no datatype", id="dtype"),
        pytest.param(np.array(["2024"], "M8[D]"), "datetime64", id="datetime"),
        pytest.param(np.array([b"a", 3], object), "element 1 is a int", id="object-int"),
        pytest.param(
            Tensor(np.zeros(1), "FP32"), "'float64' does not fit datatype 'FP32'", id="guard"
        ),
        pytest.param(Tensor(np.zeros(1), "FLOAT"), "which is none of BOOL", id="unknown"),
        pytest.param(Tensor(np.zeros(1, np.int16), "BF16"), "cannot be sent as BF16", id="bf16"),
    ],
)
def test_value_that_cannot_be_sent_is_refused_by_name(value: Any, fragment: str) -> None:
    with pytest.raises(TensorError, match=f"^{WHERE}: .*{fragment}"):
        encode(value, WHERE)


@pytest.mark.parametrize(
    ("wire", "fragment"),
    [
        pytest.param(WireTensor("FP32", (2,), b"\0" * 7), "got 7 bytes, expected 8", id="short"),
        pytest.param(WireTensor("FP32", (-1,), b""), "negative dimension", id="negative"),
        pytest.param(WireTensor("FP8", (1,), b"\0"), "unknown datatype 'FP8'", id="unknown"),
        pytest.param(WireTensor("BYTES", (1,), b"\x05\0\0\0ab"), "element 0 runs past", id="lie"),
        pytest.param(WireTensor("BYTES", (1,), b"\x05\0"), "element 0 runs past", id="cut-length"),
        pytest.param(WireTensor("BYTES", (2,), b"\0\0\0\0"), "got 1 BYTES elements", id="few"),
        pytest.param(WireTensor("BYTES", (0,), b"\0\0\0\0"), "got 1 BYTES elements", id="many"),
    ],
)
def test_answer_that_denies_itself_is_a_protocol_error(wire: WireTensor, fragment: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{WHERE}: .*{fragment}"):
        decode(wire, WHERE)


def float32_sample() -> Any:
    """Every upper half with lower halves around the rounding point, NaN and infinity included."""
    upper = np.arange(0, 2**16, dtype=np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper | lower).view(np.float32).ravel()


def test_float_is_rounded_to_bf16_as_ml_dtypes_does() -> None:
    sample = float32_sample()
    with np.errstate(all="ignore"):
        expected = sample.astype(ml_dtypes.bfloat16)
    wire = encode(Tensor(sample, "BF16"), WHERE)
    ours = np.frombuffer(wire.raw, np.uint16)
    is_nan = np.isnan(sample)
    np.testing.assert_array_equal(ours[~is_nan], expected.view(np.uint16)[~is_nan])
    assert np.isnan(ours.view(ml_dtypes.bfloat16)[is_nan].astype(np.float32)).all()


def test_bf16_scalar_and_bits_are_taken_as_they_are() -> None:
    assert encode(Tensor(np.array(np.nan, np.float32), "BF16"), WHERE).raw == b"\xc0\x7f"
    assert encode(Tensor(np.array([0x3F80], np.uint16), "BF16"), WHERE).raw == b"\x80\x3f"
    assert encode(Tensor(np.array([1.0], np.float64), "BF16"), WHERE).raw == b"\x80\x3f"


def test_bf16_without_ml_dtypes_comes_back_as_exact_float32(without_ml_dtypes: None) -> None:
    back = decode(WireTensor("BF16", (2, 1), b"\x80\x3f\x00\xc0"), WHERE)
    assert back.dtype == np.float32
    assert back.tolist() == [[1.0], [-2.0]]


def test_typed_contents_are_read_where_a_server_sends_no_raw_ones() -> None:
    assert array_of_contents("INT16", [1, -1], WHERE).raw == b"\x01\0\xff\xff"
    assert array_of_contents("BYTES", [b"a"], WHERE).raw == b"\x01\0\0\0a"


@pytest.mark.parametrize(
    ("datatype", "values"), [("FP16", [1]), ("BF16", [1]), ("X", [1]), ("UINT8", [300])]
)
def test_typed_contents_that_cannot_be_are_a_protocol_error(datatype: str, values: Any) -> None:
    with pytest.raises(ProtocolError, match=WHERE):
        array_of_contents(datatype, values, WHERE)
