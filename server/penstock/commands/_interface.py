"""What a model takes, as `penstock infer` needs to know it before it reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock_client import ModelMetadata, TensorMetadata


@dataclass(frozen=True, slots=True)
class InputInterface:
    """One input.

    Attributes:
        name: its name.
        datatype: wire datatype, for instance "FP32".
        row_shape: shape without the batch dimension; the whole shape when the model does not batch.
        has_batch: whether a batch dimension comes before row_shape.
        optional: whether a request may leave it out.
    """

    name: str
    datatype: str
    row_shape: tuple[int, ...]
    has_batch: bool
    optional: bool = False

    def describe(self) -> str:
        """What it takes, for messages: "FP32 rows of shape [64]"."""
        rows = "rows of shape" if self.has_batch else "shape"
        return f"{self.datatype} {rows} {list(self.row_shape)}"


@dataclass(frozen=True, slots=True)
class ModelInterface:
    """A model as a request sees it.

    Attributes:
        name: the model.
        inputs: what it takes.
        outputs: names of what it gives.
        max_batch_size: rows per request at most; 0 = the model does not batch.
    """

    name: str
    inputs: tuple[InputInterface, ...]
    outputs: tuple[str, ...]
    max_batch_size: int = 0

    def input(self, name: str) -> InputInterface | None:
        """The input of that name, if there is one."""
        return next((each for each in self.inputs if each.name == name), None)

    def input_names(self) -> str:
        """The inputs' names, for messages."""
        return ", ".join(f"'{each.name}'" for each in self.inputs)


def model_interface(metadata: ModelMetadata, config: Mapping[str, Any]) -> ModelInterface:
    """Puts metadata and configuration together.

    Args:
        metadata: the model's metadata: names, datatypes, shapes with the batch dimension.
        config: its configuration: max_batch_size and which inputs are optional.
    """
    max_batch_size = int(config.get("max_batch_size", 0))
    optional = {each["name"] for each in config.get("input", ()) if each.get("optional")}

    def interface(tensor: TensorMetadata) -> InputInterface:
        shape = tensor.shape[1:] if max_batch_size > 0 else tensor.shape
        has_batch = max_batch_size > 0
        is_optional = tensor.name in optional
        return InputInterface(tensor.name, tensor.datatype, shape, has_batch, is_optional)

    return ModelInterface(
        metadata.name,
        tuple(interface(tensor) for tensor in metadata.inputs),
        tuple(tensor.name for tensor in metadata.outputs),
        max_batch_size,
    )
