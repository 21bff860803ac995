"""The native core by itself, with models of the fixture backend: for tests of the border."""

import os
import select
from collections.abc import Mapping
from typing import Any

from tests.support.fixture_models import FIXTURE_BACKENDS
from tritonclient.grpc import service_pb2 as wire

from penstock import _core


def make_engine(**options: Any) -> _core.Engine:
    return _core.Engine(backend_directories=[str(FIXTURE_BACKENDS)], **options)


def load(engine: _core.Engine, **keys: str) -> _core.LoadedModel:
    """Loads a model of the fixture backend that `keys` describe."""
    parameters: Mapping[str, str] = {"kind": "identity", **keys}
    return engine.load_model(
        backend="fixture",
        model_name="m",
        version=1,
        path="/nonexistent/model.txt",
        model_directory="/nonexistent",
        parameters=parameters,
    )


def spec(**fields: Any) -> _core.VersionSpec:
    """How `serve` serves its model: IN FP32 [-1] -> OUT, one row at a time."""
    return _core.VersionSpec(
        **{
            "model_name": "m",
            "version": 1,
            "inputs": [_core.InputSpec("INPUT0", "FP32", [-1])],
            "outputs": [_core.OutputSpec("OUTPUT0", "FP32", [-1])],
            "max_batch_size": 1,
            **fields,
        }
    )


def serve(engine: _core.Engine, **keys: str) -> _core.Version:
    """Serves a fixture model as "m"."""
    version = engine.create_version(load(engine, **keys), spec())
    version.start()
    engine.set_serving("m", [version])
    return version


def request(model: str = "m", rows: int = 1) -> bytes:
    """A fresh bytes object each time, so that its references can be counted."""
    message = wire.ModelInferRequest(model_name=model)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[rows, 2])
    message.raw_input_contents.append(bytes(8 * rows))
    return bytes(message.SerializeToString())


def take(engine: _core.Engine, count: int) -> "list[_core.Completion]":
    """Waits for `count` completions, as the event loop does."""
    taken = list(engine.flush())
    while len(taken) < count:
        select.select([engine.completion_fd], [], [])
        taken += engine.take_completions()
    return taken


def await_running(version: _core.Version) -> None:
    """Waits until an instance runs a batch: the core has no event for that, so it is asked."""
    while not version.stats()["running"]:
        os.sched_yield()
