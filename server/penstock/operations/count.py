"""A model's operations, from its graph: see `contractions` for what is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from penstock.operations import shapes
from penstock.operations.contractions import (
    CONTRACTIONS,
    ShapesUnknownError,
    is_left_out,
)
from penstock.operations.text import shown

__all__ = ["UncountableError", "count_operations", "read_model"]

_MOST_OPERATIONS = 10**18


class UncountableError(ValueError):
    """The model's operations cannot be told from its graph; says why."""


def read_model(path: str) -> onnx.ModelProto:
    """A model without the weights that are in files of their own.

    Raises:
        UncountableError: it is none.
    """
    try:
        return onnx.load(path, load_external_data=False)
    except MemoryError:
        raise
    except Exception as error:
        raise UncountableError("the file cannot be read as ONNX") from error


def count_operations(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]) -> int:
    """The operations of one run, two for each multiplication and its addition.

    Args:
        model: without weights from files of their own; is changed.
        inputs: the dims of its inputs in the run that is counted, -1 = open.

    Raises:
        UncountableError: an operator is unknown, or the shapes that it needs are; no count is
            guessed.
    """
    try:
        model, known = shapes.infer(model, inputs)
    except ValueError as error:
        raise UncountableError(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:  # the checks of ONNX's inference have many types, and long texts
        text = " ".join(str(error).split())
        raise UncountableError(f"its shapes cannot be inferred: {shown(text, 200)}") from error
    total = 0
    for node in model.graph.node:
        if _operator(node) in CONTRACTIONS:
            total += _count(node, known)
        elif not _is_left_out(node):
            raise UncountableError(f"{_what(node)} is an operator whose work is not known")
    if total > _MOST_OPERATIONS:
        raise UncountableError(f"it would have more than {_MOST_OPERATIONS:.0e} operations")
    return total


def _operator(node: onnx.NodeProto) -> str:
    is_own = node.domain in ("", "ai.onnx")
    return str(node.op_type) if is_own else f"{node.domain}.{node.op_type}"


def _is_left_out(node: onnx.NodeProto) -> bool:
    """With what is within it: how often a loop runs, and which branch, is not known."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    return is_left_out(domain, node.op_type) and all(
        _operator(each) not in CONTRACTIONS and _is_left_out(each) for each in _inner(node)
    )


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for attribute in node.attribute:
        yield from attribute.g.node
        for graph in attribute.graphs:
            yield from graph.node


def _count(node: onnx.NodeProto, known: shapes.Shapes) -> int:
    try:
        found = CONTRACTIONS[_operator(node)](shapes.node_of(node, known))
    except ShapesUnknownError:
        raise UncountableError(f"{_what(node)} has shapes that are not known") from None
    except (IndexError, ValueError, ZeroDivisionError):
        raise UncountableError(f"{_what(node)} has shapes that it cannot have") from None
    if found < 0:
        raise UncountableError(f"{_what(node)} has shapes that it cannot have")
    return found


def _what(node: onnx.NodeProto) -> str:
    name = node.name or (node.output[0] if node.output else "")
    return f"node '{shown(name)}' ({shown(_operator(node))})"
