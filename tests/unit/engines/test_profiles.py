"""Which shapes an engine is built for, of how its model is batched."""

import pytest

from penstock.engines import ShapeRange, default_buckets, parse_range
from penstock.engines.profiles import NetworkInput, make_profiles
from penstock.errors import ConfigError

X = NetworkInput("x", (-1, 3))
IDS = NetworkInput("ids", (-1, -1))


@pytest.mark.parametrize(
    ("largest", "preferred", "expected"),
    [
        (0, (), ()),
        (1, (), (1,)),
        (8, (), (1, 4, 8)),
        (64, (), (1, 4, 16, 64)),
        (32, (8, 16), (1, 8, 16, 32)),
        (8, (4, 100), (1, 4, 8)),
    ],
)
def test_default_buckets(
    largest: int, preferred: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert default_buckets(largest, preferred) == expected


def test_profiles_follow_one_on_another_and_are_likely_at_their_greatest() -> None:
    assert make_profiles([X], (1, 4, 8), {}) == (
        {"x": ShapeRange((1, 3), (1, 3), (1, 3))},
        {"x": ShapeRange((2, 3), (4, 3), (4, 3))},
        {"x": ShapeRange((5, 3), (8, 3), (8, 3))},
    )


def test_open_dimensions_are_as_far_as_they_are_said_to_go() -> None:
    ranges = {"ids": ShapeRange((1,), (128,), (512,))}
    (profile,) = make_profiles([IDS], (8,), ranges)
    assert profile == {"ids": ShapeRange((1, 1), (8, 128), (8, 512))}


def test_inputs_without_a_batch_are_as_they_are_in_each_profile() -> None:
    scale = NetworkInput("scale", (2,))
    profiles = make_profiles([X, scale], (1, 2), {})
    assert [each["scale"] for each in profiles] == [ShapeRange((2,), (2,), (2,))] * 2


def test_fixed_shapes_need_no_profile() -> None:
    assert make_profiles([NetworkInput("x", (1, 3))], (), {}) == ()


def test_without_batches_a_shape_is_whole() -> None:
    ranges = {"x": ShapeRange((1, 3), (2, 3), (4, 3))}
    assert make_profiles([X], (), ranges) == ({"x": ranges["x"]},)


@pytest.mark.parametrize(
    ("inputs", "buckets", "ranges", "fault"),
    [
        (
            [IDS],
            (8,),
            {},
            "input 'ids': its shape [-1, -1] is open, and nothing says how far: "
            "--shape ids=LEAST:LIKELY:GREATEST, as 1:4:8, without the first dimension, which is "
            "the batch's: max_batch_size says how far",
        ),
        (
            [X],
            (),
            {},
            "input 'x': its shape [-1, 3] is open, and nothing says how far: "
            "--shape x=LEAST:LIKELY:GREATEST, as 1x3:4x3:8x3; or, where the first dimension is "
            "the batch's, write max_batch_size in config.pbtxt",
        ),
        (
            [X],
            (),
            {"x": ShapeRange((3,), (3,), (3,))},
            "the least shape does not fit, expected [-1, 3], got [3]; or, where the first "
            "dimension is the batch's, write max_batch_size in config.pbtxt",
        ),
        ([X], (8,), {"y": ShapeRange((3,), (3,), (3,))}, "the model has no such input"),
        (
            [X],
            (8,),
            {"x": ShapeRange((3,), (3,), (4,))},
            "greatest shape does not fit, expected [3]",
        ),
        ([X], (8,), {"x": ShapeRange((3, 3), (3,), (3,))}, "least shape does not fit"),
        ([NetworkInput("x", (1, 3))], (8,), {}, "batches of up to 8: no input has an open first"),
    ],
)
def test_what_does_not_fit_names_the_input(
    inputs: list[NetworkInput], buckets: tuple[int, ...], ranges: dict[str, ShapeRange], fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_profiles(inputs, buckets, ranges)
    assert fault in caught.value.faults[0]


def test_range_is_read() -> None:
    assert parse_range("x=1x8:4x8:16x8") == ("x", ShapeRange((1, 8), (4, 8), (16, 8)))
    assert parse_range("ids=128") == ("ids", ShapeRange((128,), (128,), (128,)))


@pytest.mark.parametrize("text", ["x", "=1", "x=", "x=1:2", "x=ax2", "x=1:2:3:4"])
def test_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="LEAST:LIKELY:GREATEST, as "):
        parse_range(text)


@pytest.mark.parametrize("text", ["16:8:512", "1:128:64", "1x8:4x8x8:8x8", "1x8:4:8x8", "-1"])
def test_range_whose_shapes_do_not_follow_on_one_another_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_range(f"ids={text}")
    assert caught.value.faults[0] == (
        "shape of input 'ids': expected least <= likely <= greatest in each dimension, "
        f"got '{text}'"
    )
