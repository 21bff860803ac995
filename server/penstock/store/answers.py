"""The five answers about a version: whose it is, which bytes, which features, code and data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock.store.records import HEARD_EVERY_S, Link, Report, VersionRecord, VersionStatus

__all__ = ["Answer", "Held", "Server", "Verdict", "audit", "explain", "servers_of"]


_MISSED = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A question, what is known, and what is not."""

    question: str
    known: tuple[str, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """What a running server says that it serves; digest "" = it does not say."""

    model: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the store says of it; no faults: it is what should be there."""

    model: str
    version: int
    held: str
    stored: str
    environments: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of a server that serves a version, or should.

    Attributes:
        heard_ms: when it was last heard of, by the calendar.
        is_silent: it has missed saying that it is there, and may be gone.
    """

    environment: str
    server: str
    status: str
    digest: str
    heard_ms: int
    is_silent: bool


def explain(
    record: VersionRecord,
    previous: VersionRecord | None,
    faults: Sequence[str] = (),
    *,
    now_ms: int = 0,
) -> list[Answer]:
    """The five answers.

    Args:
        record: the version.
        previous: the version before it, to tell what has changed; None = there is none.
        faults: of its bytes, as `verify` found them.
        now_ms: by the calendar, to tell how long servers have been silent; 0 = that is not told.
    """
    return [
        _owner(record),
        _binary(record, faults, now_ms),
        _features(record, previous),
        _code(record, previous),
        _data(record, previous),
    ]


def servers_of(record: VersionRecord, now_ms: int) -> list[Server]:
    """Those of every environment where the version serves; `now_ms` is by the calendar."""
    return [
        Server(
            deployment.environment,
            each.server,
            each.status,
            each.digest,
            each.heard_ms,
            _silent_s(each, now_ms) > 0,
        )
        for deployment in record.deployments
        if deployment.status == "SERVING"
        for each in deployment.reports
    ]


def _owner(record: VersionRecord) -> Answer:
    known = [f"owner {record.owner}"] if record.owner else []
    known += [f"team {record.team}"] if record.team else []
    known.append(f"pushed by {record.creator}")
    return Answer("Whose model is this?", tuple(known), () if record.owner else ("an owner",))


def _binary(record: VersionRecord, faults: Sequence[str], now_ms: int) -> Answer:
    count = len(record.files)
    files = f"{count} file{'s' if count != 1 else ''}"
    known = [f"{record.digest}, {files}, {record.size_bytes} bytes"]
    if record.status == VersionStatus.REMOVED:
        known.append("the stored bytes were removed")
    else:
        known.append("; ".join(faults) if faults else "the stored bytes are those that were pushed")
    serving = [each for each in record.deployments if each.status == "SERVING"]
    for deployment in serving:
        for each in deployment.reports:
            said = f"server {each.server} {_said(each, record.digest)}{_silent(each, now_ms)}"
            known.append(f"in {deployment.environment}, {said}")
    if not serving:
        known.append("it serves nowhere")
    missing = [] if record.goldens else ["a golden request that proves what it answers"]
    return Answer("Was the right binary deployed?", tuple(known), tuple(missing))


def _said(report: Report, digest: str) -> str:
    if report.status == "SERVING":
        told = "exactly these bytes" if report.digest == digest else report.digest
        return f"loaded {told}"
    failed = "waits to serve it" if report.status == "WAITING" else "could not serve it"
    return f"{failed}: {report.reason}"


def _silent(report: Report, now_ms: int) -> str:
    """How long ago a server was heard of that has missed saying twice that it is there.

    Whether it is gone nobody knows: servers of older versions say it only when they are deployed
    to, and others cannot while they do not reach the store.
    """
    silent_s = _silent_s(report, now_ms)
    if silent_s == 0:
        return ""
    for unit, length_s in (("day", 86400), ("hour", 3600)):
        if silent_s >= 2 * length_s:
            return f"; last heard of {silent_s // length_s} {unit}s ago"
    return f"; last heard of {silent_s // 60} minutes ago"


def _silent_s(report: Report, now_ms: int) -> int:
    """Since when, where that is too long; else 0."""
    silent_s = (now_ms - report.heard_ms) // 1000
    return silent_s if silent_s >= _MISSED * HEARD_EVERY_S else 0


def _features(record: VersionRecord, previous: VersionRecord | None) -> Answer:
    features = record.links_of("feature")
    known = [
        f"{number}. {each.name}{f' version {each.revision}' if each.revision else ''}"
        for number, each in enumerate(features, 1)
    ]
    if previous is not None and features:
        known += _changes("features", previous.links_of("feature"), features, previous)
    missing = [] if features else ["features"]
    missing += [f"the version of feature '{each.name}'" for each in features if not each.revision]
    return Answer("Were the features right?", tuple(known), tuple(missing))


def _code(record: VersionRecord, previous: VersionRecord | None) -> Answer:
    known, missing = [], []
    code = record.links_of("code")
    for each in code:
        branch = f" on {each.details['branch']}" if each.details.get("branch") else ""
        known.append(f"{each.uri or each.name} at commit {each.revision}{branch}")
        if each.details.get("dirty"):
            untracked = each.details.get("untracked", 0)
            among = f", {untracked} of them files or folders that git does not track"
            missing.append(f"the changes that were not committed{among if untracked else ''}")
        if not each.uri:
            missing.append("where the repository can be had")
    for run in record.links_of("run"):
        known.append(f"training run {run.name}{f' {run.uri}' if run.uri else ''}")
    if previous is not None and code:
        known += _changes("code", previous.links_of("code"), code, previous)
    if not code:
        missing.append("code: it was pushed outside of a git repository")
    if not record.links_of("run"):
        missing.append("a training run")
    return Answer("Is the code current?", tuple(known), tuple(missing))


def _data(record: VersionRecord, previous: VersionRecord | None) -> Answer:
    data = record.links_of("data")
    known = [" ".join(filter(None, (each.name, each.uri, each.digest))) for each in data]
    for metric in record.metrics:
        on = f" on {metric.dataset}" if metric.dataset else ""
        known.append(f"{metric.name} = {metric.value:g}{on}")
    if previous is not None and data:
        known += _changes("data", previous.links_of("data"), data, previous)
    missing = [] if data else ["data"]
    missing += [f"the digest of '{each.name}'" for each in data if not each.digest]
    missing += [] if record.metrics else ["metrics"]
    missing += [f"the data of metric '{m.name}'" for m in record.metrics if not m.dataset_digest]
    return Answer("Did the data change?", tuple(known), tuple(missing))


def _changes(
    what: str, old: Sequence[Link], new: Sequence[Link], previous: VersionRecord
) -> Iterator[str]:
    before = [(each.name, each.revision, each.digest) for each in old]
    after = [(each.name, each.revision, each.digest) for each in new]
    if before == after:
        yield f"the same {what} as version {previous.version}"
        return
    gone = [entry[0] for entry in before if entry not in after]
    come = [entry[0] for entry in after if entry not in before]
    names = ", ".join(dict.fromkeys([*gone, *come])) or "their order"
    yield f"other {what} than version {previous.version}: {names}"


def audit(held: Held, record: VersionRecord | None, environment: str = "") -> Verdict:
    """Whether what a server holds is what the store has and wants.

    Args:
        held: by the server.
        record: of that model and version; None = the store has none.
        environment: that the server should serve; "" = whichever.
    """
    if record is None:
        fault = "the store has no such version"
        return Verdict(held.model, held.version, held.digest, "", (), (fault,))
    serving = [each for each in record.deployments if each.status == "SERVING"]
    places = tuple(sorted({each.environment for each in serving}))
    faults = []
    if not held.digest:
        faults.append("the server does not say what it loaded: it does not serve from a store")
    elif held.digest != record.digest:
        faults.append("the server loaded other bytes than were pushed")
    if record.status in ("QUARANTINED", "REMOVED"):
        faults.append(f"the store has it {record.status.lower()}")
    if not places:
        faults.append("it should serve nowhere")
    elif environment and environment not in places:
        faults.append(f"it is not what '{environment}' should serve")
    return Verdict(held.model, held.version, held.digest, record.digest, places, tuple(faults))
