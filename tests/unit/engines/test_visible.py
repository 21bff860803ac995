"""Devices by number and UUID, as the workers of devices find theirs (device_documents_test.cc)."""

import pytest

from penstock.engines import EngineError, find_visible


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("0", None, "0"),
        ("3", None, "3"),
        ("0", "2,5", "2"),
        ("1", "2, 5", "5"),
        ("1", "GPU-a,GPU-b", "GPU-b"),
        ("0", "MIG-5a1c", "MIG-5a1c"),
        ("GPU-b", "GPU-a,GPU-b", "GPU-b"),
        ("GPU-5a1c-77", "3,GPU-5a1c", "GPU-5a1c"),
        ("GPU-5a", "GPU-5a1c", "GPU-5a1c"),
        ("GPU-5a", "GPU-5a1c,GPU-5a2d", "GPU-5a"),
        ("GPU-5a1c", None, "GPU-5a1c"),
        ("GPU-5a1c", "2,5", "GPU-5a1c"),
        ("MIG-GPU-5a1c/1/0", None, "MIG-GPU-5a1c/1/0"),
    ],
)
def test_device_is_one_of_those_that_are_seen(
    device: str, visible: str | None, expected: str
) -> None:
    assert find_visible(device, visible) == expected


@pytest.mark.parametrize(
    ("device", "visible", "why"),
    [
        ("", None, "'' is no device"),
        ("-1", None, "'-1' is no device"),
        ("0,1", None, "'0,1' is no device"),
        ("GPU-", None, "'GPU-' is no device"),
        ("GPU-a\nB=c", None, "is no device"),
        ("0\n", None, "is no device"),
        ("9" * 5000, None, "is no device"),
        ("2", "2,5", "there is no GPU 2: 2 are seen"),
        ("1", "2,-1,5", "there is no GPU 1: 1 are seen"),
        ("0", "", "there is no GPU 0: 0 are seen"),
        ("GPU-b", "GPU-a", "there is no GPU 'GPU-b': 1 others are seen"),
    ],
)
def test_device_that_is_not_seen_is_refused(device: str, visible: str | None, why: str) -> None:
    with pytest.raises(EngineError) as raised:
        find_visible(device, visible)
    assert why in str(raised.value)
