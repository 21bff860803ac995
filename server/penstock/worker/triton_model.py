"""Triton's kind of model: a `TritonPythonModel`, unchanged."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.worker.failure import ModelFault
from penstock.worker.model import INTERNAL, Answer, Batch, Stream, inputs_of_requests
from penstock.worker.pb_config import ModelConfig
from penstock.worker.pb_messages import InferenceRequest, InferenceResponse, InferenceResponseSender
from penstock.worker.pb_tensor import Tensor
from penstock.worker.source import TRITON_CLASS, Start
from penstock.worker.specs import specs_of_config
from penstock.worker.wire import Request, Signature

_GREATEST_CODE = 16
"""Of gRPC's."""


class TritonModel:
    """A model.Model of a user's TritonPythonModel."""

    def __init__(self, cls: Any, start: Start) -> None:
        if not callable(getattr(cls, "execute", None)):
            raise ModelFault(f"{TRITON_CLASS} has no method execute")
        self._class = cls
        self._start = start
        self._model: Any = None
        self._config = _complete(cls, start.config)
        self.signature = _signature(self._config, start.config)
        self._numbers = {spec.name: spec.datatype for spec in self.signature.inputs}
        self._outputs = [spec.name for spec in self.signature.outputs]

    def start(self, instance_name: str) -> None:
        """Makes an object of the class and initializes it."""
        self._model = self._class()
        if hasattr(self._model, "initialize"):
            self._model.initialize(
                {
                    "model_config": json.dumps(self._config),
                    "model_instance_kind": "CPU",
                    "model_instance_name": instance_name,
                    "model_instance_device_id": "0",
                    "model_repository": self._start.model_directory,
                    "model_version": str(self._start.version),
                    "model_name": self._start.model_name,
                }
            )

    def run(self, batch: Batch) -> list[Answer]:
        """Executes the requests."""
        requests = self._requests(batch)
        responses = self._execute(requests)
        if not isinstance(responses, list | tuple):
            raise ModelFault(
                f"execute returned a {type(responses).__name__}, expected a list of "
                "InferenceResponse"
            )
        return [_answer(response) for response in responses]

    def run_streams(
        self, batch: Batch, streams: Sequence[Stream]
    ) -> Sequence[Iterator[dict[str, Any]]]:
        """Executes the requests, which the model answers through their senders."""
        returned = self._execute(self._requests(batch, streams))
        if returned is not None:
            raise ModelFault(
                f"execute of a decoupled model returned a {type(returned).__name__}, expected None"
            )
        return ()

    def _execute(self, requests: list[InferenceRequest]) -> object:
        returned = self._model.execute(requests)
        return asyncio.run(returned) if inspect.iscoroutine(returned) else returned

    def stop(self) -> None:
        """Finalizes the object."""
        if hasattr(self._model, "finalize"):
            self._model.finalize()

    def _requests(self, batch: Batch, streams: Sequence[Stream] = ()) -> list[InferenceRequest]:
        if not batch.requests:  # one that stands for all of the batch
            tensors = [
                Tensor.of(name, self._numbers[name], array) for name, array in batch.inputs.items()
            ]
            return [InferenceRequest.of(Request(1), tensors, list(batch.wanted), None, _never)]
        made = []
        parts = inputs_of_requests(batch, bool(self._config["max_batch_size"]))
        for index, (request, inputs) in enumerate(zip(batch.requests, parts, strict=True)):
            tensors = [
                Tensor.of(name, self._numbers[name], array) for name, array in inputs.items()
            ]
            wanted = [self._outputs[output] for output in request.wanted]
            stream = streams[index] if streams else None
            sender = None if stream is None else _sender(stream)
            is_cancelled = _never if stream is None else stream.is_cancelled
            made.append(InferenceRequest.of(request, tensors, wanted, sender, is_cancelled))
        return made


def _never() -> bool:
    """Whether a request that is answered in one piece was cancelled."""
    return False


def _sender(stream: Stream) -> InferenceResponseSender:
    def send(response: InferenceResponse | None, is_final: bool) -> None:
        stream.send(None if response is None else _answer(response), is_final)

    return InferenceResponseSender(send, stream.is_cancelled)


def _answer(response: object) -> Answer:
    if not isinstance(response, InferenceResponse):
        raise ModelFault(
            f"execute returned a {type(response).__name__} among its responses, expected "
            "InferenceResponse"
        )
    error = response.error()
    if error is not None:
        code = error.code() if 0 < error.code() <= _GREATEST_CODE else INTERNAL
        return Answer({}, code, error.message())
    return Answer({tensor.name(): tensor.bits() for tensor in response.output_tensors()})


def _complete(cls: Any, written: dict[str, Any]) -> dict[str, Any]:
    """The configuration as the model completes it, and as it will be told it."""
    config = copy.deepcopy(written)
    model_config = ModelConfig(config)
    if hasattr(cls, "auto_complete_config"):
        completed = cls.auto_complete_config(model_config)
        if not isinstance(completed, ModelConfig):
            raise ModelFault(
                f"auto_complete_config returned a {type(completed).__name__}, expected ModelConfig"
            )
        config = completed.as_dict()
    for kind in ("input", "output"):
        if not config.get(kind):
            raise ModelFault(
                f"nothing says what {kind}s the model has: add them in auto_complete_config, or "
                "list them in config.pbtxt"
            )
    return config


def _signature(config: dict[str, Any], written: dict[str, Any]) -> Signature:
    has_batch = config["max_batch_size"] > 0
    decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
    return Signature(
        specs_of_config(config["input"], has_batch),
        specs_of_config(config["output"], has_batch),
        config["max_batch_size"],
        is_decoupled=decoupled,
        answers_requests=True,
        batches_dynamically=config.get("dynamic_batching") is not None,
    )
