"""Mode poll on the wire: what is done to the directories is what is served, soon after."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.models.onnx_files import add_constant, external_bias, write_model
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.any_transport

SOON = 0.02
NOT_BY_ITSELF = 86400.0


@dataclass
class Polled:
    """A server in mode poll, a client of it, and its repository."""

    server: RunningServer
    client: triton.InferenceServerClient
    repository: Path

    async def answer(
        self, model: str = "m", version: str = "", width: int = 2
    ) -> tuple[str, float]:
        """The version that answers, and what its file adds to its input."""
        given = InferInput("INPUT0", [1, width], "FP32")
        given.set_data_from_numpy(np.zeros((1, width), np.float32))
        result = await self.client.infer(model, [given], model_version=version)
        values = result.as_numpy("OUTPUT0")
        assert values.min() == values.max()
        return result.get_response().model_version, float(values[0, 0])

    async def entries(self, model: str = "m") -> dict[str, tuple[str, str]]:
        """State and reason by version, as the index has them."""
        index = await self.client.get_model_repository_index()
        return {
            each.version: (each.state, each.reason) for each in index.models if each.name == model
        }

    async def polls(self, count: int = 2) -> None:
        """Polls, whose loads may go on afterwards."""
        assert self.server.app.poller is not None
        for _ in range(count):
            await self.server.app.poller.poll()


@asynccontextmanager
async def polled(repository: Path, interval_s: float = SOON) -> AsyncIterator[Polled]:
    mode = {"model_control_mode": "poll", "repository_poll_secs": interval_s}
    async with run_server(server_config(repository, **mode)) as server:
        async with triton.InferenceServerClient(server.grpc_address) as client:
            yield Polled(server, client, repository)


async def becomes(ask: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Asks until the answer is the expected one, and fails with the last one where it never is."""
    got: Any = None
    with suppress(TimeoutError):
        async with asyncio.timeout(120):
            while (got := await outcome(ask)) != expected:
                assert got is not None
    assert got == expected


async def outcome(ask: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await ask()
    except InferenceServerException as error:
        return error.status()


async def reason_has(world: Polled, fragment: str, model: str = "m") -> dict[str, tuple[str, str]]:
    """The index, once it has a reason with the fragment in it."""
    while True:
        entries = await world.entries(model)
        if any(fragment in reason for _, reason in entries.values()):
            return entries


async def test_model_that_is_added_is_served(tmp_path: Path) -> None:
    async with polled(tmp_path) as world:
        assert await outcome(world.answer) == "StatusCode.NOT_FOUND"
        write_model(tmp_path, "m", add_constant(1))
        await becomes(world.answer, ("1", 1.0))


async def test_model_that_is_removed_is_no_longer_served(tmp_path: Path) -> None:
    for name in ("m", "other"):
        write_model(tmp_path, name, add_constant(1))
    async with polled(tmp_path) as world:
        shutil.rmtree(tmp_path / "m")
        await becomes(world.answer, "StatusCode.NOT_FOUND")
        await becomes(world.entries, {"1": ("UNAVAILABLE", "unloaded")})
        assert await world.answer("other") == ("1", 1.0)
        assert await world.client.is_server_ready()
        write_model(tmp_path, "m", add_constant(2))
        await becomes(world.answer, ("1", 2.0))


async def test_version_published_by_rename_takes_over_and_its_removal_gives_back(
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path, "m", add_constant(1))
    async with polled(tmp_path) as world:
        write_model(folder, ".incoming", add_constant(2), version=2)
        (folder / ".incoming" / "2").rename(folder / "2")
        await becomes(world.answer, ("2", 2.0))
        shutil.rmtree(folder / "2")
        await becomes(world.answer, ("1", 1.0))
        assert (await world.entries())["1"] == ("READY", "")


async def test_edited_configuration_is_followed(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", add_constant(1), config="max_batch_size: 4")
    write_model(tmp_path, "m", add_constant(2), version=2)

    async with polled(tmp_path) as world:

        async def served() -> tuple[int, list[str]]:
            config = (await world.client.get_model_config("m")).config
            versions = (await world.client.get_model_metadata("m")).versions
            return config.max_batch_size, list(versions)

        assert await served() == (4, ["2"])
        (folder / "config.pbtxt").write_text("max_batch_size: 6 version_policy { all {} }")
        await becomes(served, (6, ["1", "2"]))
        (folder / "config.pbtxt").unlink()
        await becomes(served, (64, ["2"]))


async def test_half_copied_model_is_left_alone_until_it_is_whole(tmp_path: Path) -> None:
    data = add_constant(7).SerializeToString()
    async with polled(tmp_path, NOT_BY_ITSELF) as world:
        file = tmp_path / "m" / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        for size in range(0, len(data), 20):  # a poll between any two writes
            file.write_bytes(data[:size])
            await world.polls(1)
            assert await world.entries() == {"": ("", "")}
        file.write_bytes(data)
        await world.polls(2)
        await becomes(world.answer, ("1", 7.0))


async def test_change_during_a_load_is_never_served_half(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", add_constant(1))
    async with polled(tmp_path, NOT_BY_ITSELF) as world:
        write_model(tmp_path, "m", add_constant(2), version=2)
        await world.polls(2)  # the load has begun, and does not know of the next line
        (folder / "2" / "model.onnx").write_bytes(add_constant(3).SerializeToString() + b"\n\0")
        answers: list[object] = []
        while not answers or answers[-1] != ("2", 3.0):
            answers.append(await world.answer())
            await world.polls(1)
        assert set(answers) <= {("1", 1.0), ("2", 2.0), ("2", 3.0)}  # each whole, none an error


async def test_broken_edit_leaves_the_old_version_and_says_why_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_model(tmp_path, "m", add_constant(1))
    async with polled(tmp_path) as world:
        (folder / "config.pbtxt").write_text("no_such_field: 1")
        entries = await reason_has(world, "no_such_field")
        assert entries["1"][0] == "READY"
        assert await world.answer() == ("1", 1.0)
        await world.polls(5)
        assert caplog.text.count("no_such_field") == 1  # one try
        (folder / "config.pbtxt").write_text("max_batch_size: 3")
        await becomes(world.entries, {"1": ("READY", "")})
        assert (await world.client.get_model_config("m")).config.max_batch_size == 3


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7 not a model", b"\x08\x07\x12" + b"\xff" * 64])
async def test_model_file_of_the_wrong_format_is_told_and_can_be_replaced(
    tmp_path: Path, content: bytes
) -> None:
    write_model(tmp_path, "good", add_constant(1))
    async with polled(tmp_path) as world:
        file = tmp_path / "m" / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        entries = await reason_has(world, "failed to load 'm'")
        assert entries["1"][0] == "UNAVAILABLE"
        assert await world.answer("good") == ("1", 1.0)
        write_model(tmp_path, "m", add_constant(5))
        await becomes(world.answer, ("1", 5.0))


async def test_weights_rewritten_in_place_never_reach_what_is_served(tmp_path: Path) -> None:
    width = 1 << 16  # more than a page
    folder = write_model(tmp_path, "m", external_bias("bias.bin", width))
    weights = folder / "1" / "bias.bin"
    weights.write_bytes(np.full(width, 1, np.float32).tobytes())
    async with polled(tmp_path, NOT_BY_ITSELF) as world:
        assert await world.answer(width=width) == ("1", 1.0)
        weights.write_bytes(b"")  # as copying over it begins
        assert await world.answer(width=width) == ("1", 1.0)
        weights.write_bytes(np.full(width, 2, np.float32).tobytes())
        assert await world.answer(width=width) == ("1", 1.0)
        await world.polls(2)
        await becomes(lambda: world.answer(width=width), ("1", 2.0))


@pytest.mark.parametrize("link", ["model.onnx", "config.pbtxt"])
async def test_link_out_of_the_repository_is_refused(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(add_constant(9).SerializeToString())
    repository = tmp_path / "models"
    folder = write_model(repository, "m", add_constant(1))
    async with polled(repository) as world:
        path = folder / link if link == "config.pbtxt" else folder / "1" / link
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
        entries = await reason_has(world, "leads out of the repository")
        assert entries["1"][0] == "READY"
        assert await world.answer() == ("1", 1.0)


async def test_pipe_in_place_of_a_file_holds_nothing_up(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "m", add_constant(1))
    async with polled(tmp_path) as world:
        os.mkfifo(folder / "config.pbtxt")
        await reason_has(world, "neither a file nor a directory")
        assert await world.answer() == ("1", 1.0)


async def test_repository_that_cannot_be_read_is_logged_once_and_served_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository = tmp_path / "models"
    write_model(repository, "m", add_constant(1))
    async with polled(repository, NOT_BY_ITSELF) as world:
        repository.rename(tmp_path / "away")
        await world.polls(5)
        assert caplog.text.count("cannot read model repository") == 1
        repository.mkdir()  # where a file system was mounted
        await world.polls(5)
        assert caplog.text.count("is not mounted any more") == 1
        assert await world.answer() == ("1", 1.0)
        repository.rmdir()
        (tmp_path / "away").rename(repository)
        write_model(repository, "m", add_constant(2), version=2)
        await world.polls(2)
        await becomes(world.answer, ("2", 2.0))


async def test_mode_poll_takes_no_load_or_unload_requests(tmp_path: Path) -> None:
    write_model(tmp_path, "m", add_constant(1))
    async with polled(tmp_path, NOT_BY_ITSELF) as world:
        refusal = "explicit model load / unload is not allowed if polling is enabled"
        for change in (world.client.load_model, world.client.unload_model):
            with pytest.raises(InferenceServerException, match=refusal) as caught:
                await change("m")
            assert caught.value.status() == "StatusCode.UNAVAILABLE"


async def test_server_is_unready_while_a_new_model_is_broken(tmp_path: Path) -> None:
    write_model(tmp_path, "good", add_constant(1))
    async with polled(tmp_path) as world:
        assert await world.client.is_server_ready()
        write_model(tmp_path, "m", add_constant(1), config="no_such_field: 1")
        await becomes(world.client.is_server_ready, False)
        shutil.rmtree(tmp_path / "m")
        await becomes(world.client.is_server_ready, True)
