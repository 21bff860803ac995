"""The commands of the README's section on the model store do what it says, in its order."""

import asyncio
import json
import re
import shlex
from pathlib import Path

import pytest
from tests.support.cli import penstock, started
from tests.support.models.onnx_files import add_constant, write_model

pytestmark = [pytest.mark.any_transport, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTION = README.split("### Know what serves")[1].split("\n## A first request")[0]


def commands() -> list[list[str]]:
    """Those of the block of shell, in order."""
    (block,) = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("penstock ")]


async def test_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_STORE", str(tmp_path / "store"))
    write_model(tmp_path / "models", "digits", add_constant(1.0))
    tensor = {"datatype": "FP32", "shape": [1, 1], "data": [0]}
    golden = {
        "inputs": [{**tensor, "name": "INPUT0"}],
        "outputs": [{**tensor, "name": "OUTPUT0", "data": [1]}],
    }
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    push, deploy, serve = commands()
    for command in (push, deploy):
        end = await penstock(*command)
        assert end.code == 0, end.err
    ports = [part for side in ("http", "metrics") for part in (f"--{side}-port", "0")]
    socket = f"unix:{tmp_path}/s"
    settings = [*ports, "--grpc-address", socket, "--store-cache", "cache"]
    async with started(*serve, *settings) as server:
        await becomes_ready(server)
        await penstock(*push[:-2])  # version 2, without moving the alias
        for command, version in (
            (["alias", "digits", "champion", "2"], 2),
            (["rollback", "digits", "--in", "prod", "--wait", "60"], 1),
        ):
            assert (await penstock(*command)).code == 0
            await serves(version)
        await every_answer_of_the_table(socket, tmp_path / "lineage.svg")
        server.terminate()
        await server.communicate()


async def becomes_ready(server: asyncio.subprocess.Process) -> None:
    assert server.stderr is not None
    while line := await server.stderr.readline():
        if b"is ready" in line:
            return
    raise AssertionError("the server ended")


async def serves(version: int) -> None:
    """Waits for the deployment of the version to serve."""
    while True:
        (model,) = json.loads((await penstock("list", "--json")).out)
        if model["environments"] == [f"prod={version}"]:
            return


async def every_answer_of_the_table(socket: str, drawn: Path) -> None:
    asked = re.findall(r"`penstock ([^`]+)`", SECTION)
    done = 0
    for text in asked:
        command = shlex.split(text.replace("HOST:PORT", socket).replace("champion", "1"))
        if command[0] in ("push", "alias", "rollback", "demo"):  # demo: test_cli_demo
            continue
        end = await penstock(*command)
        assert end.code == 0, (text, end.err)
        done += 1
    assert done > 8
    assert is_drawing(drawn)


def is_drawing(path: Path) -> bool:
    return path.read_text().startswith("<svg")
