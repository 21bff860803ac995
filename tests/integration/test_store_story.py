"""From push to traffic: what a server of an environment serves, and what it refuses to."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.cli import penstock
from tests.support.models.onnx_files import add_constant, identity
from tests.support.store_world import Asked, World, serving
from tests.support.stores import directory_of, postgresql, store, store_url
from tritonclient.grpc import InferInput

from penstock.store.pushing import PushRequest, push_model
from penstock.store.records import DeployStatus, Reference
from penstock.store.store import Store
from penstock.stored import inspect_model

pytestmark = pytest.mark.any_transport

__all__ = ["postgresql", "store", "store_url"]


@pytest.fixture
def world(store: Store, store_url: str, tmp_path: Path) -> World:
    return World(store, store_url, tmp_path)


@pytest.fixture
def small_world(tmp_path: Path) -> Any:
    """On SQLite only: what does not depend on the database."""
    from penstock.store.store import open_store

    url = str(tmp_path / "store")
    with open_store(url, may_create=True, actor="tester") as opened:
        yield World(opened, url, tmp_path)


def kinds(world: World, *wanted: str) -> list[tuple[str, int | None]]:
    return [(e.kind, e.version) for e in world.store.log() if e.kind in wanted]


async def test_two_versions_a_golden_request_that_fails_and_a_rollback(world: World) -> None:
    world.push(1.0, golden=1.0)
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        assert await asked.answer() == ("1", 1.0)
        world.push(2.0, golden=2.0)
        assert (await world.settled(world.deploy("m@2"))).status == "SERVING"
        assert await asked.answer() == ("2", 2.0)
        world.push(3.0, golden=3.5)
        failed = await world.settled(world.deploy("m@3"))
        assert failed.status == "FAILED"
        assert failed.reason == (
            "golden request 'golden.json': output 'OUTPUT0' is off by 0.5 at [0, 0]: expected 3.5, "
            "got 3, allowed 3.6e-05; 2 of 2 elements are off"
        )
        assert await asked.answer() == ("2", 2.0)
        assert asked.server.app.readiness.is_ready
        back = await world.settled(world.store.rollback("m", "prod"))
        assert (back.version, back.kind, back.status) == (1, "rollback", "SERVING")
        assert await asked.answer() == ("1", 1.0)
        await why_and_audit_know(world, asked)
    assert kinds(world, "serving", "deploy failed") == [
        ("serving", 1),
        ("serving", 2),
        ("deploy failed", 3),
        ("serving", 1),
    ]
    (event,) = [e for e in world.store.log(model="m", version=3) if e.kind == "deploy failed"]
    assert "'OUTPUT0' is off by 0.5" in event.details["reason"]
    statuses = {d.version: d.status for d in world.store.show(Reference("m", 2)).deployments}
    assert statuses == {2: "REPLACED"}


async def why_and_audit_know(world: World, asked: Asked) -> None:
    """After the rollback: version 1 serves, from the bytes that were pushed."""
    store = ("--store", world.url, "--json")
    why = json.loads((await penstock("why", "m@1", *store)).out)
    binary = next(a for a in why["answers"] if a["question"].startswith("Was the right binary"))
    assert binary["known"][-1].endswith("loaded exactly these bytes")
    assert binary["known"][-1].startswith("in prod, server ")
    (server,) = (each for each in why["servers"] if not each["is_silent"])
    assert (server["environment"], server["status"]) == ("prod", "SERVING")
    address = asked.server.grpc_address
    end = await penstock("audit", address, "--environment", "prod", *store)
    digest = world.store.show(Reference("m", 1)).digest
    verdict = {"model": "m", "version": 1, "held": digest, "stored": digest}
    told = {"held": [{**verdict, "environments": ["prod"], "faults": []}], "missing": []}
    assert (end.code, json.loads(end.out)) == (0, told)
    end = await penstock("audit", address, "--environment", "dev", *store)
    assert end.code == 1
    assert json.loads(end.out)["held"][0]["faults"] == ["it is not what 'dev' should serve"]


@pytest.mark.parametrize("carrier", ["auto", "grpcio"])
async def test_response_says_which_bytes_made_it_when_asked(
    small_world: World, carrier: str
) -> None:
    world = small_world
    record = world.push(1.0)
    world.deploy("m@1")
    async with serving(world.config(transport=carrier)) as asked:
        for parameters, expected in (
            ({"penstock_digest": True}, record.digest),
            ({"penstock_digest": False}, ""),
            ({}, ""),
        ):
            given = InferInput("INPUT0", [1, 2], "FP32")
            given.set_data_from_numpy(np.zeros((1, 2), np.float32))
            result = await asked.client.infer("m", [given], parameters=parameters)
            response = result.get_response()
            assert response.parameters["penstock_digest"].string_param == expected
            assert response.model_version == "1"


async def test_environment_follows_its_alias(world: World) -> None:
    world.push(1.0)
    world.push(2.0)
    world.store.alias("m", "champion", 1)
    world.deploy("m@champion")
    async with serving(world.config()) as asked:
        assert await asked.answer() == ("1", 1.0)
        world.store.alias("m", "champion", 2)
        await asked.becomes(("2", 2.0))
        world.deploy("m@1")  # pinned: the alias moves nothing any more
        await asked.becomes(("1", 1.0))
        world.store.alias("m", "champion", 1)
        world.store.alias("m", "champion", 2)
        (desired,) = world.store.desired("prod")[1]
        assert (desired.target.version, desired.target.alias) == (1, "")
        await asked.server.app.poller.poll()  # type: ignore[union-attr]
        assert await asked.answer() == ("1", 1.0)


async def test_nothing_is_lost_while_versions_are_swapped(small_world: World) -> None:
    world = small_world
    for constant in (1.0, 2.0):
        world.push(constant)
    world.deploy("m@1")
    async with serving(world.config()) as asked:
        stop = asyncio.Event()
        seen: set[tuple[str, float]] = set()

        async def ask() -> None:
            while not stop.is_set():
                seen.add(await asked.answer())

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in (2, 1, 2, 1):
            await world.settled(world.deploy(f"m@{number}"))
            await asked.becomes((str(number), float(number)))
        stop.set()
        await asyncio.gather(*asking)
    assert seen == {("1", 1.0), ("2", 2.0)}


async def test_interface_that_breaks_clients_is_refused_unless_allowed(small_world: World) -> None:
    world = small_world
    world.push(1.0)
    world.push(identity("FP64"))
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        failed = await world.settled(world.deploy("m@2"))
        assert failed.status == "FAILED"
        assert failed.reason.startswith(
            "its interface breaks clients of version 1 (--allow-breaking deploys it anyway): "
            "input 'INPUT0' was FP32 [-1, -1], is FP64 [-1, -1]"
        )
        assert await asked.answer() == ("1", 1.0)
        allowed = await world.settled(world.deploy("m@2", allow_breaking=True))
        assert allowed.status == "SERVING"
        back = await world.settled(world.store.rollback("m", "prod"))
        assert back.status == "SERVING"
        assert await asked.answer() == ("1", 1.0)


async def test_damaged_artifact_is_refused_quarantined_and_told(small_world: World) -> None:
    world = small_world
    world.push(1.0)
    record = world.push(2.0)
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        sha256 = record.files[0].sha256
        blob = directory_of(world.store).root / "blobs" / sha256[:2] / sha256
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"x")
        failed = await world.settled(world.deploy("m@2"))
        assert failed.status == "FAILED" and "with SHA-256" in failed.reason
        assert await asked.answer() == ("1", 1.0)
    assert world.store.show(Reference("m", 2)).status == "QUARANTINED"
    assert ("quarantined", 2) in kinds(world, "quarantined")


async def test_quarantined_version_that_serves_can_be_replaced(small_world: World) -> None:
    world = small_world
    record = world.push(1.0)
    world.push(2.0)
    world.push(identity("FP64"))
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        world.store.quarantine(record, "damaged")
        failed = await world.settled(world.deploy("m@3"))
        assert "its interface breaks clients of version 1" in failed.reason
        assert (await world.settled(world.deploy("m@2"))).status == "SERVING"
        assert await asked.answer() == ("2", 2.0)


async def test_interface_of_what_was_not_inspected_is_the_one_it_serves_with(
    small_world: World,
) -> None:
    world = small_world
    world.push(1.0)
    world.push(identity("FP64"))
    with world.store.database.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET signature = '{}' WHERE number = 1")
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        failed = await world.settled(world.deploy("m@2"))
        assert failed.status == "FAILED"
        assert "its interface breaks clients of version 1" in failed.reason
        assert await asked.answer() == ("1", 1.0)


async def test_damaged_golden_request_is_no_gate_that_is_open(small_world: World) -> None:
    world = small_world
    record = world.push(1.0, golden=1.0)
    sha256 = record.goldens[0].sha256
    blob = directory_of(world.store).root / "blobs" / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"1.0", b"5.0"))
    failed_ = world.deploy("m@1")
    async with serving(world.config()):
        assert "has the SHA-256" in (await world.settled(failed_)).reason
    assert world.store.show(Reference("m", 1)).status == "QUARANTINED"


async def test_undeployed_model_serves_no_more_and_can_come_back(small_world: World) -> None:
    world = small_world
    world.push(1.0)
    first = world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert (await world.settled(first)).status == "SERVING"
        world.store.undeploy("m", "prod")
        async with asyncio.timeout(60):
            while await asked.client.is_model_ready("m"):
                pass
        assert asked.server.app.readiness.is_ready
        back = await world.settled(world.store.rollback("m", "prod"))
        assert (back.status, back.version) == ("SERVING", 1)
        assert await asked.answer() == ("1", 1.0)
    world.store.undeploy("m", "prod")
    async with serving(world.config()) as asked:
        assert not await asked.client.is_model_ready("m")
        assert asked.server.app.readiness.is_ready


async def test_damaged_cache_is_fetched_anew(small_world: World) -> None:
    world = small_world
    world.push(1.0)
    world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert await asked.answer() == ("1", 1.0)
    (cached,) = (world.place / "cache" / "models").rglob("model.onnx")
    cached.write_bytes(b"damaged")
    async with serving(world.config()) as asked:
        assert await asked.answer() == ("1", 1.0)


async def test_restarted_server_serves_what_served_when_the_newest_fails(
    small_world: World,
) -> None:
    world = small_world
    world.push(1.0)
    world.push(2.0, golden=9.0)
    first = world.deploy("m@1")
    async with serving(world.config()):
        assert (await world.settled(first)).status == "SERVING"
    newest = world.deploy("m@2")
    async with serving(world.config()) as asked:
        assert await asked.answer() == ("1", 1.0)
        assert (await world.settled(newest)).status == "FAILED"
        assert asked.server.app.readiness.is_ready


async def test_server_that_cannot_serve_what_others_do_says_so_and_is_not_ready(
    small_world: World,
) -> None:
    world = small_world
    world.push(1.0)
    deployment = world.deploy("m@1")
    async with serving(world.config(server_name="a")) as one:
        assert (await world.settled(deployment)).status == "SERVING"
        small = {"store_cache": str(world.place / "other"), "store_cache_bytes": 10}
        settings = world.config(server_name="b", exit_on_error=False, **small)
        async with serving(settings) as other:
            assert not other.server.app.readiness.is_ready
            async with asyncio.timeout(60):
                while len(world.store.deployment(deployment.id).reports) < 2:
                    await asyncio.to_thread(world.store.deployment, deployment.id)
            found = world.store.deployment(deployment.id)
            assert found.status == "SERVING"
            assert [(status, reason[:21]) for _, status, reason, _, _ in found.reports] == [
                ("SERVING", ""),
                ("WAITING", "the cache has no room"),
            ]
            assert await one.answer() == ("1", 1.0)
            world.push(2.0)
        assert (await world.settled(world.deploy("m@2"))).status == "SERVING"
        assert await one.answer() == ("2", 2.0)


async def test_version_that_another_server_refused_first_is_not_taken_up(
    small_world: World,
) -> None:
    world = small_world
    world.push(1.0)
    world.push(2.0)
    first = world.deploy("m@1")
    async with serving(world.config(server_name="a", store_poll_secs=3600.0)) as asked:
        assert (await world.settled(first)).status == "SERVING"
        refused = world.deploy("m@2")
        world.store.report(refused.id, "b", DeployStatus.FAILED, reason="no memory")
        await asked.server.app.poller.poll()  # type: ignore[union-attr]
        assert await asked.answer() == ("1", 1.0)
        assert world.store.deployment(refused.id).reason == "no memory"


async def test_server_of_an_empty_environment_is_ready_and_takes_the_first_deployment(
    small_world: World,
) -> None:
    world = small_world
    world.push(1.0)
    async with serving(world.config()) as asked:
        assert asked.server.app.readiness.is_ready
        world.deploy("m@1")
        async with asyncio.timeout(60):
            while not await asked.client.is_model_ready("m"):
                pass
        assert await asked.answer() == ("1", 1.0)


async def test_version_policy_of_the_configuration_does_not_matter(small_world: World) -> None:
    world = small_world
    folder = world.place / "m"
    (folder / "7").mkdir(parents=True)
    onnx.save(add_constant(7.0), folder / "7" / "model.onnx")
    (folder / "config.pbtxt").write_text("version_policy { specific { versions: 7 } }")
    push_model(world.store, PushRequest(name="m", path=folder), inspect_model, world.place)
    world.deploy("m@1")
    async with serving(world.config()) as asked:
        assert await asked.answer() == ("1", 7.0)


async def test_configuration_tells_the_digest_that_was_loaded(small_world: World) -> None:
    world = small_world
    record = world.push(1.0)
    world.deploy("m@1")
    async with serving(world.config()) as asked:
        config = await asked.client.get_model_config("m", as_json=True)
    parameters = config["config"]["parameters"]
    assert parameters["penstock_digest"] == {"string_value": record.digest}


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"environment": ""}, "--environment: which one of --store"),
        ({"store": ""}, "--environment: needs --store"),
        ({"model_control_mode": "poll"}, "not together with --model-control-mode"),
        ({"model_repository": (Path("x"),)}, "not together with --model-repository"),
    ],
)
def test_settings_that_do_not_fit_together(
    small_world: World, settings: dict[str, Any], fragment: str
) -> None:
    from penstock.errors import ConfigError

    with pytest.raises(ConfigError, match=fragment):
        small_world.config(**settings)
