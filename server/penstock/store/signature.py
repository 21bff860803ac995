"""Signatures: the interface of a version as clients see it, and whether another may replace it.

A signature is plain values, as the database keeps them::

    {"inputs": [{"name", "datatype", "shape", "optional"}], "outputs": [...],
     "max_batch_size": 64, "decoupled": false}

Shapes have the batch dimension, -1 = any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["breaking_changes", "describe_tensor"]

Signature = Mapping[str, Any]


def breaking_changes(old: Signature, new: Signature) -> list[str]:
    """What a client of the old interface would trip over; empty: it may be replaced.

    What is not known (an empty signature) is not compared.
    """
    if not old or not new:
        return []
    return list(_changes(old, new))


def describe_tensor(tensor: Mapping[str, Any]) -> str:
    """As 'FP32 [-1, 64]'."""
    return f"{tensor['datatype']} {list(tensor['shape'])}"


def _changes(old: Signature, new: Signature) -> Iterator[str]:
    yield from _input_changes(_by_name(old["inputs"]), _by_name(new["inputs"]))
    before, after = _by_name(old["outputs"]), _by_name(new["outputs"])
    for name, tensor in before.items():
        if name not in after:
            yield f"output '{name}' is gone"
        elif not _gives(after[name], tensor):
            yield (
                f"output '{name}' was {describe_tensor(tensor)}, is {describe_tensor(after[name])}"
            )
    if not old.get("decoupled") and new.get("decoupled"):
        yield "it answers a request with any number of responses, it was one"
    if (old.get("max_batch_size") or 0) > (new.get("max_batch_size") or 0) > 0:
        yield f"max_batch_size was {old['max_batch_size']}, is {new['max_batch_size']}"


def _input_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name, tensor in before.items():
        if name not in after:
            yield f"input '{name}' is gone"
        elif not _takes(after[name], tensor):
            yield (
                f"input '{name}' was {describe_tensor(tensor)}, is {describe_tensor(after[name])}"
            )
        elif tensor.get("optional") and not after[name].get("optional"):
            yield f"input '{name}' was optional, is required"
    for name, tensor in after.items():
        if name not in before and not tensor.get("optional"):
            yield f"input '{name}' is new and required"


def _takes(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether everything that the old input took is taken."""
    return new["datatype"] == old["datatype"] and _covers(new["shape"], old["shape"])


def _gives(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether everything that is given, the old output might have given."""
    return new["datatype"] == old["datatype"] and _covers(old["shape"], new["shape"])


def _covers(wide: Sequence[int], narrow: Sequence[int]) -> bool:
    return len(wide) == len(narrow) and all(w in (-1, n) for w, n in zip(wide, narrow, strict=True))


def _by_name(tensors: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {tensor["name"]: tensor for tensor in tensors}
