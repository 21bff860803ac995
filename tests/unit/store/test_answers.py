"""The five answers, what is missing from them, and the verdicts of an audit."""

from typing import Any

import pytest

from penstock.store.answers import Held, Server, audit, explain, servers_of
from penstock.store.graph import as_svg, as_text, draw_lineage
from penstock.store.manifest import FileEntry
from penstock.store.records import (
    HEARD_EVERY_S,
    Deployment,
    Golden,
    Link,
    MetricValue,
    Report,
    VersionRecord,
)

DIGEST = "sha256:" + "d" * 64
DATA = Link("data", "train", uri="s3://lake/t", digest="sha256:t1")
FEATURES = (Link("feature", "b", "2"), Link("feature", "a", "1"))
CODE = Link("code", "repo", "c0ffee", "https://example.org/repo", details={"branch": "main"})


def version(number: int = 2, **changes: Any) -> VersionRecord:
    values: dict[str, Any] = {
        "id": number,
        "model": "m",
        "version": number,
        "digest": DIGEST,
        "files": (FileEntry("version/model.onnx", 5, "a" * 64),),
        "creator": "ada@host",
        "owner": "ada",
        "status": "READY",
        "reason": "",
        "created_ms": 0,
        "updated_ms": 0,
        "links": (DATA, *FEATURES, CODE, Link("run", "r1")),
        "metrics": (MetricValue("accuracy", 0.9, "train", "sha256:t1"),),
        "goldens": (Golden("g.json", "b" * 64),),
    }
    return VersionRecord(**{**values, **changes})


def deployed(*reports: Report, environment: str = "prod") -> Deployment:
    return Deployment(
        id=1,
        environment=environment,
        model="m",
        version=2,
        digest=DIGEST,
        kind="deploy",
        alias="",
        allow_breaking=False,
        status="SERVING",
        reason="",
        actor="ada",
        requested_ms=0,
        settled_ms=0,
        reports=reports,
    )


def known(record: VersionRecord, previous: VersionRecord | None = None) -> list[list[str]]:
    return [list(answer.known) for answer in explain(record, previous)]


def test_everything_known_leaves_nothing_missing() -> None:
    answers = explain(version(), None)
    assert [answer.question for answer in answers] == [
        "Whose model is this?",
        "Was the right binary deployed?",
        "Were the features right?",
        "Is the code current?",
        "Did the data change?",
    ]
    assert [answer.missing for answer in answers] == [()] * 5
    assert answers[2].known == ("1. b version 2", "2. a version 1")
    assert answers[3].known[0] == "https://example.org/repo at commit c0ffee on main"


def test_nothing_known_is_missing_by_name() -> None:
    bare = version(owner="", links=(), metrics=(), goldens=())
    assert [answer.missing for answer in explain(bare, None)] == [
        ("an owner",),
        ("a golden request that proves what it answers",),
        ("features",),
        ("code: it was pushed outside of a git repository", "a training run"),
        ("data", "metrics"),
    ]


def test_half_known_is_missing_in_part() -> None:
    half = version(
        links=(
            Link("data", "train", uri="s3://lake/t"),
            Link("feature", "a"),
            Link("code", "repo", "c0ffee", details={"dirty": True}),
            Link("code", "new", "c0ffee", details={"dirty": True, "untracked": 2}),
        ),
        metrics=(MetricValue("accuracy", 0.9),),
    )
    missing = [answer.missing for answer in explain(half, None)]
    assert missing[2] == ("the version of feature 'a'",)
    untracked = "the changes that were not committed, 2 of them files or folders that git does not"
    assert missing[3][:3] == (
        "the changes that were not committed",
        "where the repository can be had",
        f"{untracked} track",
    )
    assert missing[4] == ("the digest of 'train'", "the data of metric 'accuracy'")


def test_changes_since_the_version_before_are_named() -> None:
    before = version(1, links=(Link("data", "train", digest="sha256:t0"), *FEATURES[::-1], CODE))
    answers = known(version(), before)
    assert answers[2][-1] == "other features than version 1: their order"
    assert answers[3][-1] == "the same code as version 1"
    assert answers[4][-1] == "other data than version 1: train"


def test_servers_are_quoted_on_what_they_loaded() -> None:
    reports = (
        Report("s1", "SERVING", "", DIGEST, 0),
        Report("s2", "SERVING", "", "sha256:x", 0),
        Report("s3", "FAILED", "no memory", "", 0),
    )
    record = version(deployments=(deployed(*reports),))
    assert known(record)[1][2:] == [
        "in prod, server s1 loaded exactly these bytes",
        "in prod, server s2 loaded sha256:x",
        "in prod, server s3 could not serve it: no memory",
    ]


@pytest.mark.parametrize(
    ("silent_s", "ago"),
    [
        (15 * 60, "15 minutes"),
        (2 * 3600 - 1, "119 minutes"),
        (48 * 3600 - 1, "47 hours"),
        (48 * 3600, "2 days"),
    ],
)
def test_server_that_says_no_more_is_told_with_when_it_last_did(silent_s: int, ago: str) -> None:
    now_ms = 1_800_000_000_000
    missed_ms = int(3 * HEARD_EVERY_S * 1000)
    reports = (
        Report("here", "SERVING", "", DIGEST, now_ms - missed_ms + 1),
        Report("silent", "FAILED", "no memory", "", now_ms - silent_s * 1000),
    )
    record = version(deployments=(deployed(*reports),))
    assert list(explain(record, None, now_ms=now_ms)[1].known)[2:] == [
        "in prod, server here loaded exactly these bytes",
        f"in prod, server silent could not serve it: no memory; last heard of {ago} ago",
    ]
    here, silent = reports
    assert servers_of(record, now_ms) == [
        Server("prod", "here", "SERVING", DIGEST, here.heard_ms, is_silent=False),
        Server("prod", "silent", "FAILED", "", silent.heard_ms, is_silent=True),
    ]


def test_removed_bytes_are_not_called_whole() -> None:
    assert "the stored bytes were removed" in known(version(status="REMOVED"))[1]


@pytest.mark.parametrize(
    ("held", "record", "environment", "fault"),
    [
        (DIGEST, version(deployments=(deployed(),)), "", None),
        (DIGEST, version(deployments=(deployed(),)), "prod", None),
        ("sha256:x", version(deployments=(deployed(),)), "", "loaded other bytes"),
        ("", version(deployments=(deployed(),)), "", "does not say what it loaded"),
        (DIGEST, None, "", "has no such version"),
        (DIGEST, version(), "", "should serve nowhere"),
        (DIGEST, version(deployments=(deployed(),)), "dev", "not what 'dev' should serve"),
        (
            DIGEST,
            version(deployments=(deployed(),), status="QUARANTINED"),
            "",
            "the store has it quarantined",
        ),
    ],
)
def test_verdict(
    held: str, record: VersionRecord | None, environment: str, fault: str | None
) -> None:
    faults = audit(Held("m", 2, held), record, environment).faults
    assert (not faults) if fault is None else (len(faults) == 1 and fault in faults[0])


def test_lineage_goes_up_to_the_first_parent_and_down_to_where_it_serves() -> None:
    records = {
        "base": version(7, model="base", links=(DATA, Link("parent", "root", "1"))),
        "root": version(1, model="root", links=()),
    }
    parent = Link("parent", "base", "7", details={"recipe": "distilled"})
    record = version(links=(DATA, parent), deployments=(deployed(),))
    graph = draw_lineage(record, lambda name, _: records[name], [version(3)])
    assert as_text(graph).splitlines() == [
        "m@2  sha256:dddddddddddd",
        "|-- data: train  sha256:t1",
        "`-- base@7  distilled",
        "    `-- root@1",
        "=> became m@3  sha256:dddddddddddd",
        "=> serves in prod  serving",
    ]


def test_lineage_that_names_itself_ends() -> None:
    record = version(links=(Link("parent", "m", "2"),))
    assert as_text(draw_lineage(record, lambda *_: record, [])).count("m@2") == 2


def test_drawing_is_svg_whatever_the_names(tmp_path: object) -> None:
    from xml.etree import ElementTree

    record = version(links=(Link("data", '<script>"&', digest="x" * 100),))
    drawing = as_svg(draw_lineage(record, lambda *_: None, []))
    texts = [each.text for each in ElementTree.fromstring(drawing).iter() if each.text]
    assert 'data: <script>"&' in texts
    assert not any("x" * 40 in text for text in texts)
