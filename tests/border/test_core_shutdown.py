"""How the core ends: with work in flight, from other threads, with the interpreter."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.support.core_models import await_running, load, make_engine, request, serve, spec, take

import penstock
from penstock.core import Core
from penstock.errors import Code, FailedPreconditionError, UnavailableError

ROOT = Path(__file__).parents[2]


def test_shutdown_fails_the_queue_and_finishes_what_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    engine = make_engine()
    version = serve(engine, kind="block_until_file", file=str(gate))
    for number in range(3):
        engine.infer(request(), 0, number, False)
    engine.flush()
    await_running(version)

    assert not engine.shutdown(0)
    queued = take(engine, 2)
    gate.touch()
    running = take(engine, 1)

    assert {code for _, code, _, _ in queued} == {Code.UNAVAILABLE}
    assert running[0][1] == Code.OK
    assert engine.shutdown(30)
    assert engine.shutdown(30)


def test_inference_after_shutdown_is_refused() -> None:
    engine = make_engine()
    serve(engine)
    assert engine.shutdown(30)
    engine.infer(request(), 0, "late", False)

    [(_, code, _, message)] = take(engine, 1)

    assert code == Code.UNAVAILABLE
    assert message is not None and "shutting down" in message


async def test_coroutines_after_the_end_are_unavailable() -> None:
    core = Core(backend_directories=[str(Path(penstock.__file__).parent / "backends")])
    core.start()
    assert await core.close()
    with pytest.raises(UnavailableError, match="the server is shutting down"):
        await core.infer(request())
    with pytest.raises(UnavailableError, match="the server is shutting down"):
        await core.stream_infer(request())


def test_version_moves_through_its_life_once() -> None:
    engine = make_engine()
    version = engine.create_version(load(engine), spec())
    version.warm_up(request())
    version.start()
    version.start()
    with pytest.raises(FailedPreconditionError, match="before it is started"):
        version.warm_up(request())
    assert version.drain(30)
    assert version.drain(30)
    with pytest.raises(FailedPreconditionError):
        version.warm_up(request())
    version.start()


@pytest.mark.parametrize("blocking", ["wait_idle", "drain", "shutdown"])
def test_blocking_calls_let_other_threads_run(tmp_path: Path, blocking: str) -> None:
    gate = tmp_path / "gate"
    engine = make_engine()
    version = serve(engine, kind="block_until_file", file=str(gate))
    engine.infer(request(), 0, "tag", False)
    engine.flush()
    call = getattr(version if blocking == "drain" else engine, blocking)
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(call(30.0)))
    waiter.start()

    gate.touch()  # reached only if the waiter has let the interpreter go
    assert take(engine, 1)[0][1] == Code.OK
    waiter.join()

    assert results == [True]


@pytest.mark.parametrize(
    "ending",
    ["", "del engine", "raise SystemExit(0)", "import os; os._exit(0)", "engine.shutdown()"],
    ids=["falls_off_the_end", "dropped", "system_exit", "at_once", "shut_down"],
)
def test_interpreter_ends_with_a_live_engine(ending: str) -> None:
    program = (
        "from tests.support.core_models import *\n"
        "engine = make_engine()\n"
        "version = serve(engine)\n"
        "call = engine.infer(request(), 0, object(), False)\n"
        "take(engine, 1)\n"
        "other = engine.infer(request(), 0, object(), False)\n"
        f"{ending}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr.decode()) == (0, "")
