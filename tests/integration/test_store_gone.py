"""The store's database, its artifacts or the disk are gone while a server serves from them."""

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.http import ask
from tests.support.store_world import World, serving
from tests.support.stores import PostgresqlServer, directory_of, postgresql_server

from penstock.errors import StartupError
from penstock.store.failures import StoreError, StoreUnavailableError
from penstock.store.records import Reference
from penstock.store.store import open_store

pytestmark = pytest.mark.any_transport


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    with postgresql_server() as running:
        yield running


async def metric(port: int, name: str) -> float:
    text = (await ask(port, "/metrics")).body.decode()
    (line,) = [each for each in text.splitlines() if each.startswith(f"{name} ")]
    return float(line.split()[1])


async def reaches(port: int, name: str, value: float) -> None:
    async with asyncio.timeout(60):
        while await metric(port, name) != value:
            pass


async def test_inference_goes_on_without_the_database_and_deployments_wait(
    server: PostgresqlServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{server.url(server.new_database())}&artifacts={tmp_path / 'artifacts'}"
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        world.push(2.0)
        first = world.deploy("m@1")
        async with serving(world.config()) as asked:
            assert (await world.settled(first)).status == "SERVING"
            port = asked.server.metrics_port
            assert await metric(port, "penstock_store_up") == 1
            with caplog.at_level(logging.INFO, "penstock.store"):
                await asyncio.to_thread(server.stop)
                await reaches(port, "penstock_store_up", 0)
                assert await asked.answer() == ("1", 1.0)
                assert asked.server.app.readiness.is_ready
                with pytest.raises(StoreUnavailableError):
                    await asyncio.to_thread(world.deploy, "m@2")
                await asyncio.to_thread(server.start)
                await reaches(port, "penstock_store_up", 1)
            told = [record.getMessage() for record in caplog.records]
            assert any("deployments wait" in each for each in told)
            assert told[-1] == "the store answers again"
            await asyncio.to_thread(world.deploy, "m@2")
            await asked.becomes(("2", 2.0))


async def test_postgresql_tells_of_a_deployment_before_the_next_look(
    server: PostgresqlServer, tmp_path: Path
) -> None:
    url = f"{server.url(server.new_database())}&artifacts={tmp_path / 'artifacts'}"
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        world.push(2.0)
        world.deploy("m@1")
        async with serving(world.config(store_poll_secs=3600.0)) as asked:
            async with asyncio.timeout(60):
                while await asked.answer() != ("2", 2.0):  # once it listens it is told
                    await asyncio.to_thread(world.deploy, "m@2")


async def test_server_does_not_start_without_its_store(tmp_path: Path) -> None:
    url = f"postgresql://ada:secret@/db?host={tmp_path}&artifacts={tmp_path}"
    with open_store(str(tmp_path / "s"), may_create=True) as opened:
        config = World(opened, url, tmp_path).config()
    with pytest.raises(StartupError, match="does not answer") as failure:
        async with serving(config):
            pass
    assert "secret" not in str(failure.value)


async def test_deployment_waits_for_a_cache_that_has_no_room(tmp_path: Path) -> None:
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        deployment = world.deploy("m@1")
        async with serving(world.config(store_cache_bytes=10)) as asked:
            async with asyncio.timeout(60):
                while not world.store.deployment(deployment.id).reports:
                    await asyncio.to_thread(world.store.deployment, deployment.id)
            found = world.store.deployment(deployment.id)
            assert (found.status, found.reports[0][1]) == ("REQUESTED", "WAITING")
            assert found.reports[0][2].startswith("the cache has no room:")
            assert asked.server.app.readiness.is_ready
        async with serving(world.config()) as asked:  # others have room
            assert (await world.settled(deployment)).status == "SERVING"
            assert await asked.answer() == ("1", 1.0)


async def test_server_serves_from_its_cache_what_served_while_the_artifacts_are_away(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0, golden=1.0)
        world.push(2.0)
        async with serving(world.config()) as asked:
            assert (await world.settled(world.deploy("m@1"))).status == "SERVING"
        artifacts = directory_of(opened).root
        artifacts.rename(tmp_path / "away")
        newest = world.deploy("m@2")
        async with serving(world.config()) as asked:
            assert asked.server.app.readiness.is_ready
            assert await asked.answer() == ("1", 1.0)
            (tmp_path / "away").rename(artifacts)
            assert (await world.settled(newest)).status == "SERVING"
            assert await asked.answer() == ("2", 2.0)
        assert opened.show(Reference("m", 2)).status == "READY"


async def test_server_without_bytes_at_start_is_not_ready_until_they_are_there(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        deployment = world.deploy("m@1")
        async with serving(world.config()):
            assert (await world.settled(deployment)).status == "SERVING"
        directory_of(opened).root.rename(tmp_path / "away")
        async with serving(world.config(store_cache=str(tmp_path / "empty"))) as asked:
            assert asked.server.app.readiness.is_ready is False
            (tmp_path / "away").rename(directory_of(opened).root)
            async with asyncio.timeout(60):
                while not await asked.client.is_server_ready():
                    pass
            assert await asked.answer() == ("1", 1.0)


def test_full_disk_refuses_a_push_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system of 1 MiB where that may be mounted; elsewhere the room is said to be gone."""
    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        before = set(opened.artifacts.names())
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 9))
        with pytest.raises(StoreError, match=r"no room: \d+ bytes needed, 9 free"):
            world.push(2.0)
        assert set(opened.artifacts.names()) == before
        assert [each.version for each in opened.versions("m")] == [1]


def test_disk_that_fills_up_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """The limit of a file's size fails a write as a full disk does, in the middle of a file."""
    import resource
    import signal

    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        world = World(opened, url, tmp_path)
        world.push(1.0)
        before = set(opened.artifacts.names())
        big = tmp_path / "big.onnx"
        big.write_bytes(os.urandom(8 << 20))
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, old[1]))
            from penstock.store.files import SourceFile

            with pytest.raises(StoreError, match="file too large; nothing was changed"):
                with opened.artifacts.adding():
                    opened.artifacts.add([SourceFile("version/model.onnx", big)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, ignored)
        assert set(opened.artifacts.names()) == before
        assert list((directory_of(opened).root / "tmp").iterdir()) == []
