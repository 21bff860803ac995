"""A repository that is edited at random while it is polled and its models are asked."""

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.repository_editor import FORBIDDEN, MODELS, STEADY, RepositoryEditor
from tests.support.run_server import RunningServer, run_server, server_config
from tritonclient.grpc import InferInput
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.any_transport

NOT_BY_ITSELF = 86400.0


@pytest.fixture(autouse=True)
def quick_turns() -> Iterator[None]:
    """The loop asks and answers without a pause; the thread that looks at files wants the GIL too.

    By default it would wait up to 5 ms for it, each time.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(usual)


async def answer(
    client: triton.InferenceServerClient, model: str, version: str = ""
) -> tuple[str, float] | None:
    """The version that answers and what its file adds; None where nothing is served."""
    given = InferInput("INPUT0", [1, 1], "FP32")
    given.set_data_from_numpy(np.zeros((1, 1), np.float32))
    try:
        result = await client.infer(model, [given], model_version=version)
    except InferenceServerException as error:
        assert error.status() in {"StatusCode.NOT_FOUND", "StatusCode.UNAVAILABLE"}, error
        return None
    return result.get_response().model_version, float(result.as_numpy("OUTPUT0")[0, 0])


class Asker:
    """Asks the models in turn until it is cancelled; counts the answers, of which none is wrong."""

    def __init__(self, client: triton.InferenceServerClient, editor: RepositoryEditor) -> None:
        self.answers = 0
        self.versions: set[tuple[str, float]] = set()
        self._client = client
        self._editor = editor

    async def ask(self) -> None:
        while True:
            for model in MODELS:
                got = await answer(self._client, model)
                assert got is not None or model != STEADY
                if got is not None:
                    version, constant = got
                    assert constant in self._editor.written[model, version], (model, got)
                    self.answers += 1
                    self.versions.add((f"{model}/{version}", constant))


async def settle(
    server: RunningServer,
    client: triton.InferenceServerClient,
    expected: dict[str, dict[str, float]],
) -> None:
    """Polls until exactly the expected is served; a test that waits here for ever has failed."""
    assert server.app.poller is not None
    while True:
        await server.app.poller.poll()
        wanted = {(m, v): (v, c) for m, files in expected.items() for v, c in files.items()}
        if {key: await answer(client, *key) for key in wanted} == wanted:
            index = await client.get_model_repository_index()
            ready = {(each.name, each.version) for each in index.models if each.state == "READY"}
            if ready == wanted.keys():  # what was removed may go a poll later
                return


async def edit_at_random(path: Path, edits: int, seed: int) -> None:
    rng = random.Random(seed)
    polls: list[RunningServer] = []

    async def poll() -> None:
        for server in polls:
            assert server.app.poller is not None
            await server.app.poller.poll()

    editor = RepositoryEditor(path / "models", path / "outside", rng, poll)
    mode = {"model_control_mode": "poll", "repository_poll_secs": NOT_BY_ITSELF}
    async with run_server(server_config(path / "models", **mode)) as server:
        polls.append(server)
        async with triton.InferenceServerClient(server.grpc_address) as client:
            asker = Asker(client, editor)
            asking = asyncio.create_task(asker.ask())
            try:
                for _ in range(edits):
                    await editor.edit()
                    for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
                        await poll()
                    assert not asking.done(), asking
                await settle(server, client, editor.mend())
            finally:
                asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await answer(client, MODELS[-1]) is None
        stats = server.app.core.infer_stats()
        assert stats["inflight"] == 0
        assert FORBIDDEN not in {constant for _, constant in asker.versions}
        assert asker.answers > len(asker.versions) > 1


@pytest.mark.lengthy
async def test_thousand_random_edits_bring_no_wrong_answer_and_the_last_state_is_served(
    tmp_path: Path,
) -> None:
    await edit_at_random(tmp_path, 1000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_thousands_of_random_edits(tmp_path: Path, seed: int) -> None:
    await edit_at_random(tmp_path, 3000, seed=100 + seed)
