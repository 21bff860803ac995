"""The store's records on SQLite and on PostgreSQL."""

import threading

import pytest
from sqlalchemy import text
from tests.support.stores import directory_of, postgresql, push, store, store_url

from penstock.store.failures import RefusedError, StoreError, UnknownEntryError
from penstock.store.records import DeployStatus, Reference, VersionStatus
from penstock.store.store import Store, open_store

pytestmark = pytest.mark.any_transport

__all__ = ["postgresql", "store", "store_url"]


def ref(written: str) -> Reference:
    return Reference.parse(written)


def kinds(store: Store, **which: object) -> list[str]:
    return [event.kind for event in store.log(**which)]  # type: ignore[arg-type]


def test_everything_that_was_pushed_is_shown(store: Store) -> None:
    pushed = push(store, "digits", tags={"stage": "new"}, description="reads digits")
    shown = store.show(ref("digits@1"))
    assert shown == pushed
    assert shown.digest.startswith("sha256:") and shown.size_bytes == 5
    assert [file.path for file in shown.files] == ["version/model.onnx"]
    assert [(link.name, link.revision) for link in shown.links_of("feature")] == [
        ("b", "2"),
        ("a", "1"),
    ]
    assert shown.metrics[0].dataset_digest == shown.links_of("data")[0].digest
    assert (shown.tags, shown.status) == ({"stage": "new"}, "READY")
    assert kinds(store, model="digits") == ["pushed"]


def test_versions_count_up_and_removed_numbers_are_not_used_again(store: Store) -> None:
    assert [push(store, content=bytes([n])).version for n in range(3)] == [1, 2, 3]
    store.remove(ref("m@3"))
    assert push(store, content=b"4").version == 4
    assert store.show(ref("m")).version == 4
    assert store.show(ref("m@3")).status == VersionStatus.REMOVED


def test_pushes_at_once_get_a_number_each(store_url: str, store: Store) -> None:
    numbers: list[int] = []
    barrier = threading.Barrier(8)

    def one(which: int) -> None:
        with open_store(store_url, actor=f"pusher {which}") as mine:
            barrier.wait()
            numbers.append(push(mine, content=f"model {which // 2}".encode()).version)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))
    assert all(not store.verify(Reference("m", n)).faults for n in numbers)


@pytest.mark.parametrize(
    ("written", "fragment"),
    [
        ("x", "no model 'x'"),
        ("m@9", "'m' has no version 9"),
        ("m@best", "'m' has no alias 'best', it has 'champion'"),
    ],
)
def test_unknown_reference_says_what_there_is(store: Store, written: str, fragment: str) -> None:
    push(store)
    store.alias("m", "champion", 1)
    with pytest.raises(UnknownEntryError, match=fragment):
        store.show(ref(written))


@pytest.mark.parametrize("written", ["", "@1", "a/b", ".a", "a@", "a@0", "a@-1", "a@b/c", "a@@b"])
def test_reference_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(RefusedError):
        ref(written)


def test_alias_points_moves_and_goes(store: Store) -> None:
    push(store)
    push(store, content=b"2")
    assert store.alias("m", "champion", 1) is None
    assert store.alias("m", "champion", 2) == 1
    assert store.show(ref("m@champion")).version == 2
    assert store.show(ref("m@2")).aliases == ("champion",)
    assert store.alias("m", "champion", None) == 2
    with pytest.raises(UnknownEntryError):
        store.alias("m", "champion", None)
    assert kinds(store)[2:] == ["alias set", "alias set", "alias removed"]


def test_alias_that_looks_like_a_version_is_refused(store: Store) -> None:
    push(store)
    with pytest.raises(RefusedError, match="look like a version"):
        store.alias("m", "7", 1)


def test_tags_are_set_and_taken_away(store: Store) -> None:
    push(store, tags={"a": "1", "b": "2"})
    assert store.tag(ref("m@1"), {"a": None, "b": "3", "c": "4"}).tags == {"b": "3", "c": "4"}


def test_alias_of_an_archived_version_cannot_be_deployed(store: Store) -> None:
    push(store)
    store.alias("m", "champion", 1)
    store.archive(ref("m@1"))
    with pytest.raises(RefusedError, match="alias 'champion' of 'm' points to version 1, which is"):
        store.deploy(ref("m@champion"), "prod")
    with pytest.raises(RefusedError, match="m@1 is archived"):
        store.alias("m", "best", 1)
    store.archive(ref("m@1"), undo=True)
    assert store.deploy(ref("m@champion"), "prod").version == 1


def test_what_serves_is_neither_archived_nor_removed(store: Store) -> None:
    push(store)
    store.deploy(ref("m@1"), "prod")
    for change in (store.archive, store.remove):
        with pytest.raises(RefusedError, match="it is deployed to prod"):
            change(ref("m@1"))


def test_removing_takes_the_bytes_that_no_other_version_needs(store: Store) -> None:
    first = push(store, content=b"shared")
    push(store, "other", content=b"shared")
    push(store, content=b"alone")
    store.remove(ref("m@2"))
    store.remove(ref("m@1"))
    assert set(store.artifacts.names()) == {first.digest[7:], first.files[0].sha256}
    assert store.verify(ref("other@1")).faults == ()
    assert store.show(ref("m@1")).links == first.links
    with pytest.raises(RefusedError, match="m@1 is removed"):
        store.deploy(ref("m@1"), "prod")


def test_damaged_version_is_quarantined_and_healed_by_the_same_bytes(store: Store) -> None:
    record = push(store)
    blob = directory_of(store).root / "blobs" / record.files[0].sha256[:2] / record.files[0].sha256
    blob.chmod(0o644)
    blob.write_bytes(b"mOdel")
    found = store.verify(ref("m@1"))
    assert found.status == "QUARANTINED"
    assert "'version/model.onnx': expected 5 bytes with SHA-256" in found.faults[0]
    assert not blob.exists()
    event = store.log(model="m")[-1]
    assert (event.kind, event.version) == ("quarantined", 1)
    assert "expected 5 bytes" in event.details["reason"]
    with pytest.raises(RefusedError, match="m@1 is quarantined: 'version/model.onnx': expected"):
        store.deploy(ref("m@1"), "prod")
    push(store, "copy")
    assert store.verify(ref("m@1")).status == "READY"


def test_archived_version_that_was_damaged_is_archived_again_once_healed(store: Store) -> None:
    stale = push(store)
    store.archive(ref("m@1"))
    store.quarantine(stale, "said by somebody who read it before")
    assert store.show(ref("m@1")).status == "ARCHIVED"
    store.quarantine(store.show(ref("m@1")), "damaged")
    assert store.show(ref("m@1")).status == "QUARANTINED"
    assert store.verify(ref("m@1")).status == "ARCHIVED"


def test_damaged_golden_request_is_quarantined(store: Store) -> None:
    record = push(store, goldens={"g": b"{}"})
    sha256 = record.goldens[0].sha256
    blob = directory_of(store).root / "blobs" / sha256[:2] / sha256
    blob.chmod(0o644)
    blob.write_bytes(b"[]")
    (fault,) = store.verify(ref("m@1")).faults
    assert fault.startswith(f"golden request 'g': blob {sha256} has the SHA-256")
    assert store.show(ref("m@1")).status == "QUARANTINED" and not blob.exists()


def test_events_can_only_be_added(store: Store) -> None:
    push(store)
    statements = ["UPDATE events SET actor = 'x'", "DELETE FROM events"]
    if not store.database.is_postgresql:
        statements.append("INSERT OR REPLACE INTO events SELECT * FROM events")
    for statement in statements:
        with pytest.raises(StoreError, match="only ever added"):
            with store.database.write() as connection:
                connection.execute(text(statement))
    assert kinds(store) == ["pushed"]


def test_lists_show_pointers_and_environments(store: Store) -> None:
    push(store)
    push(store, content=b"2")
    push(store, "other")
    store.alias("m", "champion", 1)
    (model, other) = store.models()
    assert (model.model, model.version, model.aliases) == ("m", 2, ("champion=1",))
    assert (other.model, other.aliases) == ("other", ())
    assert [(each.version, each.aliases) for each in store.versions("m")] == [
        (2, ()),
        (1, ("champion",)),
    ]
    assert [each.version for each in store.versions("m", limit=1)] == [2]


def test_reason_that_no_database_takes_is_told_as_far_as_it_can_be(store: Store) -> None:
    push(store)
    asked = store.deploy(ref("m@1"), "prod")
    store.report(asked.id, "a", DeployStatus.FAILED, reason="no \udcff\0 file")
    assert store.deployment(asked.id).reason == "no ? file"
    assert store.deployment(asked.id).reports[0].reason == "no ? file"
    assert store.log(model="m")[-1].details["reason"] == "no ? file"


def test_server_is_heard_of_where_it_serves_and_nowhere_else(store: Store) -> None:
    push(store)
    push(store, content=b"2")
    old = store.deploy(ref("m@1"), "prod")
    store.report(old.id, "a", DeployStatus.SERVING)
    new, other = store.deploy(ref("m@2"), "prod"), store.deploy(ref("m@2"), "staging")
    for deployment in (new, other):
        for server in ("a", "b"):
            store.report(deployment.id, server, DeployStatus.SERVING)
    with store.database.write() as connection:
        connection.execute(text("UPDATE reports SET reported_ms = 0"))
    events = kinds(store)
    store.hear("prod", "a")
    heard = {
        (number, each.server)
        for number in (old.id, new.id, other.id)
        for each in store.deployment(number).reports
        if each.heard_ms > 0
    }
    assert heard == {(new.id, "a")}
    assert kinds(store) == events, "it is nothing that has happened"
