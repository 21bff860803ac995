"""Tensors of a signature, from a configuration or a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.worker.datatypes import number_of
from penstock.worker.failure import ModelFault
from penstock.worker.wire import Spec

MAX_RANK = 16


def specs_of_config(tensors: Iterable[Mapping[str, Any]], has_batch: bool) -> tuple[Spec, ...]:
    """The tensors of a configuration's `input` or `output`, as the model sees them."""
    return tuple(_spec_of_config(tensor, has_batch) for tensor in tensors)


def _spec_of_config(tensor: Mapping[str, Any], has_batch: bool) -> Spec:
    name = tensor["name"]
    reshape = tensor.get("reshape") or {}
    dims = reshape["shape"] if "shape" in reshape else tensor["dims"]
    return _spec(name, tensor["data_type"], dims, has_batch, bool(tensor.get("optional")))


def specs_of_class(owner: str, tensors: object, has_batch: bool) -> tuple[Spec, ...]:
    """The tensors of a class attribute: name -> (datatype, dims without the batch dimension).

    Raises:
        ModelFault: it is not written like that.
    """
    if not isinstance(tensors, Mapping):
        raise ModelFault(f"{owner} is a {type(tensors).__name__}, expected a dict of tensors")
    specs = []
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, tuple) or len(value) != 2:
            raise ModelFault(
                f'{owner}[{name!r}] is {value!r}, expected (datatype, dims), as in ("FP32", (64,))'
            )
        specs.append(_spec(name, value[0], value[1], has_batch, False))
    return tuple(specs)


def _spec(name: str, datatype: object, dims: Any, has_batch: bool, optional: bool) -> Spec:
    is_shape = isinstance(dims, Sequence) and not isinstance(dims, str)
    if not is_shape or not all(isinstance(dim, int) and dim >= -1 for dim in dims):
        raise ModelFault(f"'{name}' has dims {dims!r}, expected whole numbers, -1 = any")
    if len(dims) >= MAX_RANK:
        raise ModelFault(f"'{name}' has {len(dims)} dims, at most {MAX_RANK - 1} are supported")
    try:
        number = number_of(datatype)
    except ModelFault as error:
        raise ModelFault(f"'{name}': {error}") from None
    return Spec(name, number, (-1,) * has_batch + tuple(dims), optional)
