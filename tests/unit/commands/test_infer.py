"""`penstock infer` against a server that is a function."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.commands._failure import CommandError
from penstock.commands._inputs import InputOptions
from penstock.commands.infer import Ask, ask_server
from penstock_client import AsyncClient, AsyncMockTransport, Call
from penstock_client._messages import pb


class Doubler:
    """A model `m`: X FP32 [4] -> Y = 2 X, in batches of at most 8."""

    def __init__(self, max_batch_size: int = 8) -> None:
        self.max_batch_size = max_batch_size
        self.requests: list[Any] = []

    async def __call__(self, call: Call, request: Any) -> Any:
        if call.method.name == "ModelMetadata":
            shape = [-1, 4] if self.max_batch_size else [4]
            metadata = pb.ModelMetadataResponse(name="m", versions=["3"], platform="p")
            metadata.inputs.add(name="X", datatype="FP32", shape=shape)
            metadata.outputs.add(name="Y", datatype="FP32", shape=shape)
            return metadata
        if call.method.name == "ModelConfig":
            config = pb.ModelConfigResponse()
            config.config.max_batch_size = self.max_batch_size
            return config
        self.requests.append(request)
        values = np.frombuffer(request.raw_input_contents[0], np.float32) * 2
        response = pb.ModelInferResponse(model_name="m", model_version="3")
        response.outputs.add(name="Y", datatype="FP32", shape=request.inputs[0].shape)
        response.raw_output_contents.append(values.tobytes())
        return response


def ask(path: Path, **changes: Any) -> Ask:
    values: dict[str, Any] = {
        "model": "m",
        "version": "",
        "files": (path,),
        "named": (),
        "reading": InputOptions(),
        "batch_size": 0,
        "in_flight": 2,
        "priority": 0,
        "timeout_s": 60.0,
        "queue_timeout_us": 0,
        "classes": 0,
    }
    return Ask(**(values | changes))


def client(model: Doubler) -> AsyncClient:
    return AsyncClient("nowhere", transport=AsyncMockTransport(model))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(80, dtype=np.float32).reshape(20, 4))
    return path


@pytest.mark.parametrize(("batch_size", "sizes"), [(0, [8, 8, 4]), (7, [7, 7, 6]), (1, [1] * 20)])
async def test_rows_go_in_batches_and_come_back_in_order(
    rows: Path, batch_size: int, sizes: list[int]
) -> None:
    model = Doubler()
    answer = await ask_server(ask(rows, batch_size=batch_size), client(model))
    assert [request.inputs[0].shape[0] for request in model.requests] == sizes
    assert answer.outputs["Y"].ravel().tolist() == list(range(0, 160, 2))
    assert (answer.version, answer.has_rows, answer.datatypes) == ("3", True, {"Y": "FP32"})


async def test_options_are_sent_with_every_request(rows: Path) -> None:
    model = Doubler()
    asked = ask(rows, version="3", priority=2, queue_timeout_us=5000, classes=3)
    answer = await ask_server(asked, client(model))
    for request in model.requests:
        assert request.model_version == "3"
        assert request.parameters["priority"].uint64_param == 2
        assert request.parameters["timeout"].int64_param == 5000
        assert request.outputs[0].parameters["classification"].int64_param == 3
    assert answer.datatypes == {"Y": "BYTES"}


async def test_model_without_batches_gets_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3, 4]")
    model = Doubler(max_batch_size=0)
    answer = await ask_server(ask(path), client(model))
    assert answer.outputs["Y"].tolist() == [2, 4, 6, 8]
    assert not answer.has_rows


@pytest.mark.parametrize(
    ("max_batch_size", "batch_size", "fault"),
    [(8, 9, "--batch-size 9 is more than model 'm' takes: 8"), (0, 2, "model 'm' does not batch")],
)
async def test_batch_size_the_model_does_not_take(
    tmp_path: Path, max_batch_size: int, batch_size: int, fault: str
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(4, np.float32))
    model = Doubler(max_batch_size)
    with pytest.raises(CommandError, match=fault):
        await ask_server(ask(path, batch_size=batch_size), client(model))
    assert model.requests == []


async def test_file_that_does_not_fit_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 5), np.float32))
    model = Doubler()
    with pytest.raises(CommandError, match=r"takes FP32 rows of shape \[4\]"):
        await ask_server(ask(path), client(model))
    assert model.requests == []
