"""Stores for tests: in a directory of their own, or on a PostgreSQL server of the test run.

The server is Debian's, on a Unix-domain socket in a directory of its own, and runs as somebody
without privileges: it refuses to run as root.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from penstock.store.directory import ArtifactDirectory
from penstock.store.files import SourceFile
from penstock.store.manifest import Manifest
from penstock.store.records import Link, MetricValue, NewVersion, VersionRecord
from penstock.store.store import Store, open_store

_UNPRIVILEGED = "nobody"
_OPTIONS = ["listen_addresses=", "fsync=off", "full_page_writes=off", "wal_level=minimal"]
_OPTIONS += ["max_wal_senders=0", "autovacuum=off", "shared_buffers=32MB"]


def postgresql_binaries() -> Path:
    """Where initdb and postgres are; a missing package fails the tests, it does not skip them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "there is no PostgreSQL: apt-get install postgresql"
    return found[-1].parent


class PostgresqlServer:
    """A server of the test run; `stop` and `start` make it go away and come back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._binaries = postgresql_binaries()
        user = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
        self._unprivileged = [] if user is None else _without_privileges(user)
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        command = [*self._unprivileged, str(self._binaries / "initdb")]
        command += ["-D", str(self.directory / "data"), "-U", "penstock", "-A", "trust"]
        command += ["-E", "UTF8", "--no-sync", "--locale=C"]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode < 0:  # a signal: seen once in hundreds of runs, and no test of ours
            shutil.rmtree(self.directory / "data", ignore_errors=True)
            ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, f"initdb: {ended.returncode}: {ended.stdout}{ended.stderr}"

    def start(self) -> None:
        command = [*self._unprivileged, str(self._binaries / "postgres")]
        command += ["-D", str(self.directory / "data"), "-k", str(self.directory)]
        command += [part for each in _OPTIONS for part in ("-c", each)]
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log)
        ready = [str(self._binaries / "pg_isready"), "-h", str(self.directory), "-t", "1", "-q"]
        while subprocess.run(ready).returncode != 0:
            assert self._process.poll() is None, (self.directory / "log").read_text()

    def stop(self) -> None:
        """At once, as when the machine is gone: connections break."""
        if self._process is not None:
            self._process.send_signal(3)  # SIGQUIT: immediate shutdown
            self._process.wait()
            self._process = None

    def new_database(self) -> str:
        name = f"store_{secrets.token_hex(8)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY".encode())
        return name

    def url(self, database: str) -> str:
        return f"postgresql://penstock@/{database}?host={self.directory}"


def _without_privileges(user: pwd.struct_passwd) -> list[str]:
    """What runs a command as `user`.

    Not Popen's `user`: for that it forks, and a fork of a process with threads may crash
    before it becomes another program.
    """
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A running server, gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has 107 bytes
    server = PostgresqlServer(directory)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One for the whole run; each test has a database of its own."""
    with postgresql_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return f"{server.url(server.new_database())}&artifacts={tmp_path / 'artifacts'}"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Open, empty, on either database."""
    with open_store(store_url, may_create=True, actor="tester") as opened:
        yield opened


def directory_of(store: Store) -> ArtifactDirectory:
    """Where its bytes are, which is a directory."""
    assert isinstance(store.artifacts, ArtifactDirectory)
    return store.artifacts


def push(
    store: Store,
    name: str = "m",
    content: bytes = b"model",
    goldens: Mapping[str, bytes] | None = None,
    **known: object,
) -> VersionRecord:
    """Pushes one small file with everything known of it, or what is given."""
    values = {
        "owner": "ada",
        "links": (
            Link("data", "digits", uri="s3://lake/digits", digest="sha256:d1"),
            Link("feature", "b", revision="2"),
            Link("feature", "a", revision="1"),
            Link("code", "https://example.org/repo", revision="c0ffee"),
        ),
        "metrics": (MetricValue("accuracy", 0.9, "digits", "sha256:d1"),),
        **known,
    }

    def describe(manifest: Manifest) -> NewVersion:
        return NewVersion(
            model=name,
            digest=manifest.digest,
            files=manifest.files,
            backend="onnxruntime",
            creator="tester",
            **values,  # type: ignore[arg-type]
        )

    return store.push([SourceFile("version/model.onnx", content)], describe, goldens)
