"""What `penstock scaler` tells others: a webhook's receiver that verifies, and a plug-in."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_replica import fake_replica
from tests.support.http_receiver import Receiver, receiver

from penstock.errors import StartupError
from penstock.scaler import Scaler
from penstock.scaling import hooks
from penstock.scaling.config import ScalerConfig
from penstock.scaling.hooks import Change, HookRunner
from penstock.scaling.signals import ModelSignals
from penstock.scaling.webhook import Webhook, sign, verify

pytestmark = pytest.mark.any_transport

SECRET = b"correct horse battery"
CHANGE = Change("m", 1, 2, True, "because", ModelSignals("m", replicas=1))
QUICK = {"interval_secs": 0.02, "grpc_port": 0}


@dataclass
class Told:
    """A plug-in that remembers."""

    changes: asyncio.Queue[Change] = field(default_factory=asyncio.Queue)

    async def __call__(self, change: Change) -> None:
        self.changes.put_nowait(change)


@asynccontextmanager
async def running(hook: Any) -> AsyncIterator[HookRunner]:
    runner = HookRunner("test", hook, first_pause_s=0.001)
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


def webhook(to: Receiver, **settings: Any) -> Webhook:
    options = {"timeout_s": 10.0, "wall_clock": time.time, **settings}
    return Webhook(f"http://127.0.0.1:{to.port}/scale?x=1", SECRET, **options)


async def test_decision_is_posted_and_its_signature_verifies(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    async with receiver(200, 200) as there, fake_replica(m={"success": 1}) as one:
        scaler = Scaler(
            ScalerConfig(
                replica=(one.address,),
                webhook_url=f"http://127.0.0.1:{there.port}/scale",
                webhook_secret_file=str(secret),
                **QUICK,  # type: ignore[arg-type]
            )
        )
        try:
            await scaler.start()
            first = await there.next()
            one.models["m"] = {"success": 100, "busy_s": 1e6, "pending": 1000}
            second = await there.next()
        finally:
            await scaler.stop()
    assert (first.method, first.path) == ("POST", "/scale")
    assert first.headers["content-type"] == "application/json"
    for message in (first, second):
        stamp = message.headers["penstock-timestamp"]
        signature = message.headers["penstock-signature"]
        assert verify(SECRET, stamp, signature, message.body, now=time.time())
        assert not verify(b"another secret..", stamp, signature, message.body, now=time.time())
        assert not verify(SECRET, stamp, signature, message.body + b" ", now=time.time())
        assert not verify(SECRET, stamp, signature, message.body, now=time.time() + 400)
        assert not verify(SECRET, stamp + "0", signature, message.body, now=time.time())
    told = [json.loads(each.body) for each in (first, second)]
    assert [(each["previous"], each["model"]) for each in told] == [(None, "m"), (1, "m")]
    assert told[1]["replicas"] > 1
    assert told[1]["signals"]["pending"] == 1000


@pytest.mark.parametrize("failure", [500, 503, 429, 0])
async def test_message_is_sent_again_until_it_is_taken(failure: int) -> None:
    async with receiver(failure, failure, 204) as there, running(webhook(there)) as runner:
        runner.tell(CHANGE)
        bodies = [(await there.next()).body for _ in range(3)]
        assert len(set(bodies)) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 404])
async def test_refusal_is_final(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async with receiver(status, 200) as there, running(webhook(there)) as runner:
        runner.tell(CHANGE)
        await there.next()
        other = Change("other", None, 1, False, "", ModelSignals("other"))
        runner.tell(other)
        assert json.loads((await there.next()).body)["model"] == "other"
    assert f"HTTP status {status}; it is not told again" in caplog.text


async def test_newer_decision_takes_the_place_of_one_that_failed() -> None:
    told: asyncio.Queue[int] = asyncio.Queue()

    async def hook(change: Change) -> None:
        told.put_nowait(change.replicas)
        if change.replicas == 2:
            runner.tell(Change("m", 2, 3, True, "", change.signals))
            raise hooks.HookError("not now")

    async with running(hook) as runner:
        runner.tell(CHANGE)
        assert [await told.get(), await told.get()] == [2, 3]
    assert told.empty()


async def test_receiver_that_is_silent_costs_its_time_only() -> None:
    async with receiver(-1, 200) as there, running(webhook(there, timeout_s=0.05)) as runner:
        runner.tell(CHANGE)
        await there.next()
        assert (await there.next()).method == "POST"


@pytest.mark.parametrize("raised", [RuntimeError("a defect of the plug-in"), SystemExit(1)])
async def test_plugin_is_told_and_one_that_raises_harms_nobody(
    raised: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    def bad(change: Change) -> None:
        raise raised

    class Loaded:
        def __init__(self, name: str, called: Any) -> None:
            self.name, self.value, self._called = name, "x:y", called

        def load(self) -> Any:
            return self._called

    points = [Loaded("good", told), Loaded("bad", bad)]
    monkeypatch.setattr(hooks, "entry_points", lambda group: points)
    async with fake_replica(m={}) as one:
        config = ScalerConfig(replica=(one.address,), plugin=("bad", "good"), **QUICK)  # type: ignore[arg-type]
        scaler = Scaler(config)
        try:
            await scaler.start()
            change = await told.changes.get()
        finally:
            await scaler.stop()
    assert (change.model, change.previous, change.replicas) == ("m", None, 1)


def test_plugin_that_hangs_keeps_nobody_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, never = threading.Event(), threading.Event()

    def hung(change: Change) -> None:
        entered.set()
        never.wait()

    class Loaded:
        name, value = "hung", "x:y"

        def load(self) -> Any:
            return hung

    async def tell_and_stop() -> None:
        ((_, hook),) = hooks.plugin_hooks(["hung"])
        async with running(hook) as runner:
            runner.tell(CHANGE)
            await asyncio.to_thread(entered.wait)

    monkeypatch.setattr(hooks, "entry_points", lambda group: [Loaded()])
    try:
        asyncio.run(tell_and_stop())  # it joins the threads of the default executor
        (thread,) = [each for each in threading.enumerate() if each.name == "plugin"]
        assert thread.daemon
    finally:
        never.set()


def test_plugin_that_is_not_there_or_broken_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [EntryPoint("broken", "no_such_module:f", hooks.GROUP)]
    monkeypatch.setattr(hooks, "entry_points", lambda group: points)
    with pytest.raises(StartupError, match=r"no entry point 'nope' of penstock.scaling .*broken"):
        hooks.plugin_hooks(["nope"])
    with pytest.raises(StartupError, match="plug-in broken cannot be imported.*no_such_module"):
        hooks.plugin_hooks(["broken"])


def test_signature_is_what_any_receiver_computes() -> None:
    # From `printf '1700000000.{}' | openssl dgst -sha256 -hmac 'correct horse battery'`.
    expected = "6c91c03804c0ea7479de239b284c37a047ae7f18df77bc09d414b411f78f40db"
    assert sign(SECRET, 1700000000, b"{}") == f"v1={expected}"


@pytest.mark.parametrize(
    "url", ["http://u:p@host/", "http://", "http://host:x/", "http://h\u00e9/"]
)
def test_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(StartupError, match="--webhook-url"):
        Webhook(url, SECRET, timeout_s=1, wall_clock=time.time)


def test_short_secret_is_refused() -> None:
    with pytest.raises(StartupError, match="less than 16 bytes"):
        Webhook("http://host/", b"secret", timeout_s=1, wall_clock=time.time)
