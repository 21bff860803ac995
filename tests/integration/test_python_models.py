"""Python models through the server: both kinds answer; every way to fail is told and survived."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.models.python_files import (
    IDENTITY,
    TRITON_ADD_SUB,
    add_python_model,
    parameters,
)
from tests.support.run_server import run_server, server_config

from penstock_client import AsyncClient, RetryPolicy, RpcError

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


@asynccontextmanager
async def serving(repository: Path, **settings: object) -> AsyncIterator[AsyncClient]:
    config = server_config(repository, **settings)
    once = RetryPolicy(max_attempts=1)  # or a client's retries would spend the restarts
    async with run_server(config) as server, AsyncClient(server.grpc_address, retry=once) as client:
        yield client


def native(body: str, **attributes: str) -> str:
    """A native model of one FP32 input x and output y; `body` is predict's."""
    values = {
        "inputs": '{"x": ("FP32", (4,))}',
        "outputs": '{"y": ("FP32", (4,))}',
        **attributes,
    }
    lines = [f"    {name} = {value}" for name, value in values.items()]
    lines += ["    def predict(self, batch):", *(f"        {line}" for line in body.splitlines())]
    return "\n".join(["import ctypes, os, signal", "import numpy as np", "class Model:", *lines])


async def failure(client: AsyncClient, model: str = "m") -> RpcError:
    with pytest.raises(RpcError) as caught:
        await client.infer(model, {"x": ROW})
    return caught.value


async def refusal(repository: Path) -> str:
    """Why the one model of the repository is not served; no path of the machine is in it."""
    async with serving(repository, exit_on_error=False, strict_readiness=False) as client:
        (entry,) = await client.repository_index()
    assert entry.state == "UNAVAILABLE"
    assert str(repository) not in entry.reason
    return entry.reason


async def test_native_class_answers_without_a_configuration(tmp_path: Path) -> None:
    add_python_model(tmp_path, "identity", IDENTITY)
    rows = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    async with serving(tmp_path) as client:
        metadata = await client.model_metadata("identity")
        assert metadata.platform == "python"
        assert tuple(metadata.inputs[0].shape) == (-1, -1)
        assert (await client.model_ready("identity")) is True
        result = await client.infer("identity", {"INPUT0": rows})
    np.testing.assert_array_equal(result["OUTPUT0"], rows)


async def test_triton_model_answers_unchanged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add_python_model(tmp_path, "add_sub", TRITON_ADD_SUB)
    async with serving(tmp_path) as client:
        result = await client.infer("add_sub", {"INPUT0": ROW, "INPUT1": ROW + 1})
        config = await client.model_config("add_sub")
    np.testing.assert_array_equal(result["OUTPUT0"], 2 * ROW + 1)
    np.testing.assert_array_equal(result["OUTPUT1"], np.full_like(ROW, -1))
    assert config["max_batch_size"] == 8
    assert "dynamic_batching" in config
    log = capfd.readouterr().err
    assert "initialized add_sub" in log
    assert "finalized" in log


async def test_load_is_given_the_context(tmp_path: Path) -> None:
    source = """
        import os
        import numpy as np
        class Model:
            inputs = {"x": ("FP32", (1,))}
            outputs = {"said": (bytes, (5,))}
            def load(self, context):
                directory = os.path.basename(context.version_directory)
                self.said = [context.model_name, str(context.version), context.instance_name,
                             directory, context.parameters["greeting"]]
            def predict(self, batch):
                return {"said": np.array([self.said] * len(batch["x"]), dtype=object)}
    """
    add_python_model(tmp_path, "m", source, config=parameters(greeting="grüß"), version=7)
    async with serving(tmp_path) as client:
        result = await client.infer("m", {"x": np.zeros((2, 1), np.float32)})
    expected = [b"m", b"7", b"m_7_0", b"7", "grüß".encode()]
    assert result["said"].tolist() == [expected, expected]


async def test_what_a_load_has_made_is_kept_from_the_collector(tmp_path: Path) -> None:
    source = """
        import gc
        import numpy as np
        class Model:
            inputs = {"x": ("FP32", (1,))}
            outputs = {"spared": ("INT64", (1,)), "is_looked_at": ("BOOL", (1,))}
            def load(self, context):
                self.made = [[i] for i in range(1000)]
            def predict(self, batch):
                left = {id(each) for each in gc.get_objects()}  # without what is frozen
                rows = len(batch["x"])
                is_looked_at = any(id(each) in left for each in self.made)
                return {"spared": np.full((rows, 1), gc.get_freeze_count()),
                        "is_looked_at": np.full((rows, 1), is_looked_at)}
    """
    add_python_model(tmp_path, "m", source)
    async with serving(tmp_path) as client:
        result = await client.infer("m", {"x": np.zeros((1, 1), np.float32)})
    assert result["spared"].item() > 1000
    assert not result["is_looked_at"].item()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import numby", "ModuleNotFoundError: No module named 'numby'"),
        ("class Modell: pass", "neither a class Model nor a class TritonPythonModel"),
        ("def f(:", "SyntaxError"),
        ("class Model:\n  def predict(self, batch): ...", "nothing says what inputs the model has"),
        (
            "class Model:\n  inputs = {'x': 'FP32'}\n  def predict(self, batch): ...",
            "expected (datatype, dims)",
        ),
        ("import os; os._exit(3)", "exited with code 3 while it loaded"),
        (
            native("return {}", load="lambda self, context: open('/nowhere/weights')"),
            "FileNotFoundError",
        ),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    ],
)
async def test_model_that_does_not_load_says_why(tmp_path: Path, source: str, reason: str) -> None:
    add_python_model(tmp_path, "m", source)
    assert reason in await refusal(tmp_path)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("raise ValueError('a bad row')", "message: ValueError: a bad row"),
        ("return None", "predict returned a NoneType, expected a dict"),
        ("return {'z': batch['x']}", "output 'y' is missing, the model gave 'z'"),
        ("return {'y': batch['x'].astype('f8')}", "output 'y' came as FP64, expected FP32"),
        ("return {'y': batch['x'][:, :2]}", "output 'y' came with shape [1,2], expected [1,4]"),
        ("return {'y': np.zeros((9, 4), 'f4')}", "expected a first dimension of 1"),
        ("return {'y': [object()]}", "output 'y'"),
    ],
)
async def test_wrong_answer_fails_its_batch_only(tmp_path: Path, body: str, text: str) -> None:
    source = native(f"if batch['x'][0, 0] == 0:\n    {body}\nreturn {{'y': batch['x']}}")
    add_python_model(tmp_path, "m", source)
    async with serving(tmp_path) as client:
        error = await failure(client)
        result = await client.infer("m", {"x": ROW + 1})
    assert error.code.name == "INTERNAL"
    assert "'m'" in str(error)
    assert text in str(error)
    np.testing.assert_array_equal(result["y"], ROW + 1)


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("os._exit(5)", "exited with code 5"),
        ("while True: pass", "a batch took longer than 2 s"),
    ],
)
async def test_worker_that_ends_fails_its_batch_and_comes_back(
    tmp_path: Path, body: str, how: str
) -> None:
    source = native(f"if batch['x'][0, 0] == 0:\n    {body}\nreturn {{'y': batch['x']}}")
    add_python_model(tmp_path, "m", source, config=parameters(execution_limit_s=2))
    async with serving(tmp_path) as client:
        error = await failure(client)
        assert error.code.name == "UNAVAILABLE"
        assert "model 'm' version 1: its worker " in str(error)
        assert how in str(error)
        while not await client.model_ready("m"):
            pass
        result = await client.infer("m", {"x": ROW + 1})
    np.testing.assert_array_equal(result["y"], ROW + 1)


async def test_spent_restarts_leave_the_model_unready(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", native("os._exit(1)"), config=parameters(max_restarts=0))
    async with serving(tmp_path) as client:
        await failure(client)
        while await client.model_ready("m"):
            pass
        assert not await client.server_ready()
        error = await failure(client)
        while "its worker is being started" in str(error):  # until its end is known
            error = await failure(client)
    assert error.code.name == "UNAVAILABLE"
    assert "load the model again" in str(error)


async def test_watcher_hears_that_the_last_worker_has_gone(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", native("os._exit(1)"), config=parameters(max_restarts=0))
    config = server_config(tmp_path)
    async with run_server(config) as server, server.client() as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with AsyncClient(server.grpc_address) as caller:
            await failure(caller)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


async def test_missing_environment_says_which_command_builds_it(tmp_path: Path) -> None:
    model = add_python_model(tmp_path / "models", "m", IDENTITY)
    (model / "requirements.lock").write_text("numpy==2.0 --hash=sha256:00\n")
    settings = {"exit_on_error": False, "python_environments": str(tmp_path / "environments")}
    async with serving(tmp_path / "models", **settings) as client:
        (entry,) = await client.repository_index()
    assert "requirements.lock was not built: run `penstock check --prepare`" in entry.reason


async def test_memory_limit_fails_the_batch(tmp_path: Path) -> None:
    source = native("held = bytearray(4 << 30)\nreturn {'y': batch['x']}")
    add_python_model(tmp_path, "m", source, config=parameters(memory_limit_mb=1024))
    async with serving(tmp_path) as client:
        error = await failure(client)
    assert "MemoryError" in str(error)
    assert error.code.name == "INTERNAL"


async def test_flood_of_output_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = native(
        "for _ in range(20):\n    os.write(1, (b'x' * 99 + b'\\n') * 10000)\n"
        "return {'y': batch['x']}"
    )
    add_python_model(tmp_path, "m", source)
    async with serving(tmp_path) as client:
        await client.infer("m", {"x": ROW})
    log = capfd.readouterr().err
    assert "of its output were left out" in log
    assert len(log) < 2_000_000


async def test_unload_ends_the_worker(tmp_path: Path) -> None:
    source = native("return {'y': batch['x'] * 0 + os.getpid()}")
    add_python_model(tmp_path, "m", source)
    settings = {"model_control_mode": "explicit", "load_model": ("m",)}
    async with serving(tmp_path, **settings) as client:
        result = await client.infer("m", {"x": ROW})
        process = Path("/proc") / str(int(result["y"][0, 0]))
        assert process.exists()
        await client.unload_model("m")
        while process.exists():
            await client.server_live()
