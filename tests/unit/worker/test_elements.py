import numpy as np
import pytest

from penstock.worker.elements import decode_elements, encode_elements


def test_elements_pass_there_and_back() -> None:
    array = np.array([[b"a", "b\u00e9"], [b"", b"\0"]], dtype=np.object_)
    data = encode_elements(array)
    assert decode_elements(data, 4).tolist() == [b"a", "b\u00e9".encode(), b"", b"\0"]


@pytest.mark.parametrize("data", [b"\1", b"\2\0\0\0a", b"\1\0\0\0ab"])
def test_data_of_other_elements_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="cut short|behind"):
        decode_elements(data, 1)


def test_element_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        encode_elements(np.array([3], dtype=np.object_))
