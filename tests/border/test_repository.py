"""The repository on the native core: ONNX files completed, checked, swapped and unloaded."""

import asyncio
import importlib.util
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2 as wire

import penstock
from penstock.codec import RawTensor, build_infer_request
from penstock.core import Core
from penstock.errors import InvalidArgumentError, NotFoundError, UnavailableError
from penstock.repository import ModelManager, RepositorySettings, check_repository
from penstock.repository.core_engine import CoreEngine

PLUGINS = Path(penstock.__file__).parent / "backends"


def save_adder(path: Path, addend: float, batch: str | int = "n", width: int = 2) -> None:
    """y = x + addend."""
    constant = helper.make_tensor("addend", TensorProto.FLOAT, [1], [addend])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "addend"], ["y"])],
        "adder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


@dataclass(frozen=True)
class Served:
    """A manager on a core of its own."""

    core: Core
    manager: ModelManager

    async def add(self, x: float, version: int | None = None) -> float:
        """Asks the adder; every output row must be the same."""
        data = struct.pack("<2f", x, x)
        request = build_infer_request("adder", version or 0, [RawTensor("x", "FP32", (1, 2), data)])
        if version is None:
            message = wire.ModelInferRequest.FromString(request)
            message.model_version = ""
            request = message.SerializeToString()
        response = wire.ModelInferResponse.FromString(await self.core.infer(request))
        first, second = struct.unpack("<2f", response.raw_output_contents[0])
        assert first == second
        return float(first)


def make_core() -> Core:
    core = Core(backend_directories=[str(PLUGINS)])
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None and found.submodule_search_locations
    library = str(Path(found.submodule_search_locations[0]) / "capi")
    core.engine.set_backend_options("onnxruntime", {"library": library})
    return core


@asynccontextmanager
async def serve(repository: Path, load: Sequence[str] = ("*",)) -> AsyncIterator[Served]:
    core = make_core()
    core.start()
    settings = RepositorySettings(
        (repository,), "explicit", tuple(load), backend_directories=(PLUGINS,)
    )
    manager = ModelManager(CoreEngine(core), settings)
    try:
        await manager.start()
        yield Served(core, manager)
    finally:
        await manager.close(30)
        await core.close()


async def test_absent_configuration_is_completed_from_the_file(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    save_adder(tmp_path / "fixed" / "1" / "model.onnx", 1, batch=1)
    async with serve(tmp_path) as served:
        assert await served.add(2) == 3
        config = served.manager.config("adder")
        assert config.max_batch_size == 64 and config.dynamic_batching is not None
        assert served.manager.metadata("adder").inputs[0].shape == (-1, 2)
        assert served.manager.config("fixed").max_batch_size == 0
        assert served.manager.metadata("fixed").inputs[0].shape == (1, 2)
        (statistics,) = served.manager.statistics("adder")
        assert statistics.counters["inference_count"] == 1


async def test_reload_under_load_loses_no_request(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    async with serve(tmp_path) as served:
        answers: set[float] = set()
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                answers.add(await served.add(0))

        callers = [asyncio.create_task(ask()) for _ in range(8)]
        for version in range(2, 6):
            save_adder(tmp_path / "adder" / str(version) / "model.onnx", version)
            await served.manager.load("adder")
            assert await served.add(0) == version
        done.set()
        await asyncio.gather(*callers)
        assert answers and answers <= {1, 2, 3, 4, 5}


async def test_corrupt_reload_leaves_the_old_version_answering(tmp_path: Path) -> None:
    path = tmp_path / "adder" / "1" / "model.onnx"
    save_adder(path, 1)
    async with serve(tmp_path) as served:
        path.write_bytes(b"broken")
        with pytest.raises(InvalidArgumentError, match=r"failed to load 'adder'.*model\.onnx"):
            await served.manager.load("adder")
        assert await served.add(0) == 1
        (entry,) = await served.manager.index()
        assert entry.state == "READY" and "model.onnx" in entry.reason
        assert str(tmp_path) not in entry.reason


async def test_unloaded_model_and_unknown_versions_are_told_apart(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    async with serve(tmp_path) as served:
        with pytest.raises(NotFoundError, match="unknown model: 'adder' version 9 is not found"):
            await served.add(0, version=9)
        await served.manager.unload("adder")
        with pytest.raises(NotFoundError, match="unknown model: 'adder' has no available versio"):
            await served.add(0)
        with pytest.raises(UnavailableError, match="'adder' version 1 is not at ready state"):
            await served.add(0, version=1)
        await served.manager.load("adder")
        assert await served.add(0) == 1


async def test_versions_of_a_policy_answer_side_by_side(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        save_adder(tmp_path / "adder" / str(version) / "model.onnx", version)
    (tmp_path / "adder" / "config.pbtxt").write_text(
        "version_policy { specific { versions: [1, 2] } }"
    )
    async with serve(tmp_path) as served:
        assert [await served.add(0, 1), await served.add(0, 2), await served.add(0)] == [1, 2, 2]


WARM_UP = """
max_batch_size: 4 instance_group { count: 2 }
model_warmup { name: "w" batch_size: 3 count: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 random_data: true } } }
"""


async def test_warm_up_runs_on_the_real_model(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    (tmp_path / "adder" / "config.pbtxt").write_text(WARM_UP)
    async with serve(tmp_path) as served:
        assert await served.add(0) == 1


async def test_version_says_what_runs_it_and_on_what(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    async with serve(tmp_path) as served:
        (version,) = served.manager.statistics("adder")
        assert (version.runs_on, version.counters["devices"]) == ("CPU", [])
        assert version.engine.startswith("ONNX Runtime 1.")
        assert served.manager.metadata("adder").runs_on == "CPU"


async def test_reshape_and_settings_reach_the_real_model(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1, width=4)
    (tmp_path / "adder" / "config.pbtxt").write_text(
        """max_batch_size: 4 platform: "onnxruntime_onnx"
        input { name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape { shape: [4] } }
        optimization { graph { level: 1 } }
        parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        dynamic_batching { priority_levels: 2 default_priority_level: 2
          default_queue_policy { max_queue_size: 4 } }"""
    )
    async with serve(tmp_path) as served:
        data = struct.pack("<4f", 1, 2, 3, 4)
        request = build_infer_request("adder", 1, [RawTensor("x", "FP32", (1, 2, 2), data)])
        response = wire.ModelInferResponse.FromString(await served.core.infer(request))
        assert struct.unpack("<4f", response.raw_output_contents[0]) == (2, 3, 4, 5)


async def test_check_opens_the_files_and_serves_nothing(tmp_path: Path) -> None:
    save_adder(tmp_path / "adder" / "1" / "model.onnx", 1)
    save_adder(tmp_path / "wrong" / "1" / "model.onnx", 1)
    (tmp_path / "wrong" / "config.pbtxt").write_text(
        'max_batch_size: 4 input { name: "x" data_type: TYPE_FP64 dims: 3 }'
    )
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"broken")
    core = make_core()
    core.start()
    try:
        settings = RepositorySettings((tmp_path,), backend_directories=(PLUGINS,))
        report = await core.run(check_repository, CoreEngine(core), settings)
    finally:
        await core.close()
    adder, broken, wrong = report.models
    assert adder.faults == ()
    assert "model.onnx" in broken.faults[0]
    assert wrong.faults == (
        "config.pbtxt: input[0].data_type: 'x' is FP32 in the model file, got FP64",
        "config.pbtxt: input[0].dims: 'x' is [2] in the model file, without the batch dimension, "
        "got [3]",
    )
