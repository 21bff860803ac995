"""The native kind of model: a class `Model` with `load` and `predict`.

    class Model:
        inputs = {"x": ("FP32", (4,))}      # dims without the batch dimension, -1 = any
        outputs = {"y": ("FP32", (4,))}
        max_batch_size = 32                 # optional; 0: no batch dimension

        def load(self, context): ...        # optional
        def predict(self, batch):           # dict of arrays in, dict of arrays out
            return {"y": batch["x"] * 2}
        def unload(self): ...               # optional

Where `predict` is a generator the model is decoupled: it is called for one request at a time and
yields any number of responses to it; GeneratorExit tells it that the client has gone.

What the class does not say is taken from config.pbtxt. Inputs are views on memory that is used
again once `predict` has returned: keep a copy of what is to be kept. BYTES are arrays of bytes
objects, and BF16 is the UINT16 of its bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.worker.failure import ModelFault
from penstock.worker.model import Answer, Batch, Stream, inputs_of_requests
from penstock.worker.source import NATIVE_CLASS, Start
from penstock.worker.specs import specs_of_class, specs_of_config
from penstock.worker.wire import Signature, Spec


@dataclass(frozen=True)
class Context:
    """What `load` is given.

    Attributes:
        model_name: of the model.
        version: its number.
        instance_name: of this instance of it.
        model_directory: of the model; its versions and what they share.
        version_directory: where the model's file lies.
        config: the ModelConfig, names as in config.pbtxt.
        parameters: of the configuration.
    """

    model_name: str
    version: int
    instance_name: str
    model_directory: str
    version_directory: str
    config: dict[str, Any]
    parameters: dict[str, str]


class NativeModel:
    """A model.Model of a user's class."""

    def __init__(self, cls: Any, start: Start) -> None:
        if not inspect.isclass(cls) or not callable(getattr(cls, "predict", None)):
            raise ModelFault(f"{NATIVE_CLASS} is not a class with a method predict")
        predict = cls.predict  # type: ignore[attr-defined]
        if inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict):
            raise ModelFault(f"{NATIVE_CLASS}.predict is async, expected a function or a generator")
        self._class: Any = cls
        self._start = start
        self._model: Any = None
        self._has_batch = _max_batch_size(cls, start.config) != 0
        self.signature = _signature(cls, start.config)

    def start(self, instance_name: str) -> None:
        """Makes an object of the class and loads it."""
        start = self._start
        self._model = self._class()
        if hasattr(self._model, "load"):
            self._model.load(
                Context(
                    start.model_name,
                    start.version,
                    instance_name,
                    start.model_directory,
                    start.path.rpartition("/")[0],
                    start.config,
                    start.parameters,
                )
            )

    def run(self, batch: Batch) -> list[Answer]:
        """Predicts."""
        outputs = self._model.predict(batch.inputs)
        if not isinstance(outputs, Mapping):
            raise ModelFault(
                f"predict returned a {type(outputs).__name__}, expected a dict of arrays by name"
            )
        return [Answer(dict(outputs))]

    def run_streams(
        self, batch: Batch, streams: Sequence[Stream]
    ) -> Sequence[Iterator[dict[str, Any]]]:
        """A generator for each request: `predict` on its rows alone."""
        has_batch = self._has_batch
        return [self._model.predict(inputs) for inputs in inputs_of_requests(batch, has_batch)]

    def stop(self) -> None:
        """Unloads the object."""
        if hasattr(self._model, "unload"):
            self._model.unload()


def _max_batch_size(cls: Any, config: dict[str, Any]) -> int | None:
    """What the configuration says or else the class; None: neither does."""
    declared = getattr(cls, "max_batch_size", None)
    if declared is not None and (not isinstance(declared, int) or declared < 0):
        raise ModelFault(f"{NATIVE_CLASS}.max_batch_size is {declared!r}, expected 0 or more")
    written: int | None = config.get("max_batch_size")
    return declared if written is None else written


def _signature(cls: Any, config: dict[str, Any]) -> Signature:
    declared = getattr(cls, "max_batch_size", None)
    has_batch = _max_batch_size(cls, config) != 0
    is_decoupled = inspect.isgeneratorfunction(cls.predict)
    return Signature(
        _tensors(cls, "input", config, has_batch),
        _tensors(cls, "output", config, has_batch),
        -1 if declared is None else declared,
        is_decoupled=is_decoupled,
        answers_requests=is_decoupled,
        batches_dynamically=has_batch and "max_batch_size" not in config,
    )


def _tensors(cls: Any, kind: str, config: dict[str, Any], has_batch: bool) -> tuple[Spec, ...]:
    attribute = f"{kind}s"
    declared = getattr(cls, attribute, None)
    if declared is not None:
        return specs_of_class(f"{NATIVE_CLASS}.{attribute}", declared, has_batch)
    if config.get(kind):
        return specs_of_config(config[kind], has_batch)
    raise ModelFault(
        f"nothing says what {attribute} the model has: set {NATIVE_CLASS}.{attribute}, or list "
        "them in config.pbtxt"
    )
