"""Which interface may take another's place."""

from typing import Any

import pytest

from penstock.store.signature import breaking_changes


def tensor(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4), **more: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def signature(**changes: Any) -> dict[str, Any]:
    base = {"inputs": [tensor("x")], "outputs": [tensor("y")], "max_batch_size": 8}
    return {**base, "decoupled": False, **changes}


@pytest.mark.parametrize(
    "new",
    [
        signature(),
        signature(inputs=[tensor("x", shape=(-1, -1))]),
        signature(inputs=[tensor("x"), tensor("z", optional=True)]),
        signature(outputs=[tensor("y"), tensor("extra")]),
        signature(max_batch_size=16),
        {},
    ],
)
def test_what_takes_and_gives_at_least_as_much_is_compatible(new: dict[str, Any]) -> None:
    assert breaking_changes(signature(), new) == []


@pytest.mark.parametrize(
    ("new", "change"),
    [
        (signature(inputs=[tensor("z", optional=True)]), "input 'x' is gone"),
        (
            signature(inputs=[tensor("x", "FP64")]),
            "input 'x' was FP32 [-1, 4], is FP64 [-1, 4]",
        ),
        (
            signature(inputs=[tensor("x", shape=(1, 4))]),
            "input 'x' was FP32 [-1, 4], is FP32 [1, 4]",
        ),
        (signature(inputs=[tensor("x"), tensor("z")]), "input 'z' is new and required"),
        (signature(outputs=[]), "output 'y' is gone"),
        (
            signature(outputs=[tensor("y", shape=(-1, -1))]),
            "output 'y' was FP32 [-1, 4], is FP32 [-1, -1]",
        ),
        (signature(max_batch_size=4), "max_batch_size was 8, is 4"),
        (
            signature(decoupled=True),
            "it answers a request with any number of responses, it was one",
        ),
    ],
)
def test_breaking_change_names_the_tensor(new: dict[str, Any], change: str) -> None:
    assert breaking_changes(signature(), new) == [change]


def test_optional_input_that_becomes_required_breaks() -> None:
    old = signature(inputs=[tensor("x", optional=True)])
    assert breaking_changes(old, signature()) == ["input 'x' was optional, is required"]
