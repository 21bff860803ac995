"""A successor that fails, however it does: what is healthy serves on."""

import asyncio
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import handover, serving
from penstock.config import ServerConfig
from penstock.handover import Successor, refusal

NOBODY = 2**22 + 1
"""Above the greatest number of a process."""


async def test_successor_whose_end_somebody_else_saw_has_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handover, "_spawn", lambda passed: NOBODY)
    assert not await Successor({}).is_ready()
    assert f"process {NOBODY}, ended before it was ready: exit code unknown" in caplog.text


async def test_defect_of_a_handover_is_logged_and_the_server_serves_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = asyncio.Event()

    class App:
        config = ServerConfig(model_repository=(Path("m"),))

    async def broken(self: Any, ending: Any) -> bool:
        failed.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(serving._Handover, "_hand_over", broken)
    told: list[str] = []

    class Manager:
        def tell(self, *lines: str) -> None:
            told.extend(lines)

    made = serving._Handover(cast(Any, App()), cast(Any, Manager()))
    ending = asyncio.get_running_loop().create_future()
    over = asyncio.create_task(made.until_over(cast(Any, ending)))
    made._asked.set()
    await failed.wait()
    assert not over.done()
    ending.set_result(signal.SIGTERM)
    assert await over == App.config.shutdown_grace_secs
    assert "SIGUSR2: the handover failed" in caplog.text
    assert told == ["STOPPING=1", "STATUS=draining after SIGTERM"]


def test_models_that_a_successor_would_not_have_are_named() -> None:
    explicit = ServerConfig(model_repository=(Path("m"),), model_control_mode="explicit")
    assert refusal(explicit, "native", []) == ""
    assert refusal(explicit, "native", ["a", "b"]).endswith("as this one does: 'a', 'b'")
    assert refusal(explicit, "native", [str(n) for n in range(12)]).endswith("'9' and 2 more")
    assert refusal(ServerConfig(model_repository=(Path("m"),)), "native", ["a"]) == ""
