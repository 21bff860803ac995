"""The model store: a large push and fetch beside cp and sha256, lists, and following an alias.

Run: .venv/bin/python bench/store.py [--mib 1024] [--versions 10000] [--rounds 5]

Push and fetch take turns with `cp` and then `sha256` of the same file on the same file system,
without and with a flush to the disk: a push flushes before it says that it is done, cp never does,
and a fetch into a cache need not. All of them are run cold and warm: before each the disk is made
to owe nothing (sync), and what it reads (the file; for a fetch, the store's blobs) is dropped from
memory (POSIX_FADV_DONTNEED) or read into it. What each made is gone before the next: nobody pays
for the other's pages. `sha256` and `cp` by themselves say what bounds the others. Lists and aliases
are those of a store of many versions on SQLite. Following is the time from the call that moves an
alias to the first answer of the new version, digits, poll every 0.5 s.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import _measure
import numpy as np

import penstock_client
from penstock.commands._demo_model import train
from penstock.store.cache import ArtifactCache
from penstock.store.files import SourceFile
from penstock.store.manifest import Manifest
from penstock.store.pushing import PushRequest, push_model
from penstock.store.records import NewVersion, Reference
from penstock.store.store import Store, open_store
from penstock.stored import inspect_model

MEMORY = ("cold", "warm")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        large(Path(place), options.mib, options.rounds)
        many(Path(place), options.versions, options.rounds)
        follow(Path(place), options.rounds)


def spread(run: Callable[[], object], rounds: int) -> _measure.Spread:
    """Milliseconds that it takes."""
    return _measure.Spread(tuple(1000 * seconds(run) for _ in range(rounds)))


def describe(manifest: Manifest) -> NewVersion:
    return NewVersion(
        model="m", digest=manifest.digest, files=manifest.files, creator="bench", owner="bench"
    )


class Large:
    """A large file, a store, and what is done with them: each leaves what `tidy` removes."""

    def __init__(self, place: Path, store: Store, mib: int) -> None:
        self.source = place / "source.onnx"
        self.copied = place / "copy"
        self.cache = place / "cache"
        self.store = store
        with self.source.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))

    @property
    def read(self) -> list[Path]:
        """What is read by anything below: the source and the blobs."""
        blobs = Path(self.store.artifacts.shown, "blobs")
        return [self.source, *(each for each in blobs.rglob("*") if each.is_file())]

    def cp(self) -> None:
        subprocess.run(["cp", str(self.source), str(self.copied)], check=True)

    def sha256(self) -> None:
        self.hash(self.source)

    def cp_sha256(self) -> None:
        self.cp()
        self.hash(self.copied)

    def cp_flush_sha256(self) -> None:
        self.cp()
        with self.copied.open("rb") as file:
            os.fsync(file.fileno())
        self.hash(self.copied)

    def hash(self, path: Path) -> None:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    def push(self) -> None:
        self.store.push([SourceFile("version/model.onnx", self.source)], describe)

    def fetch(self) -> None:
        cache = ArtifactCache(self.cache, 0)
        cache.open()
        cache.fetch(self.store.show(Reference("m")), self.store.artifacts)
        cache.close()

    def tidy(self) -> None:
        self.copied.unlink(missing_ok=True)
        shutil.rmtree(self.cache, ignore_errors=True)


def large(place: Path, mib: int, rounds: int) -> None:
    """Push and fetch of one large file, in turn with what anybody would do without a store."""
    taken: dict[tuple[str, str], list[float]] = {}
    with open_store(str(place / "large"), may_create=True) as store:
        all_of_it = Large(place, store, mib)
        stages = {
            "sha256": all_of_it.sha256,
            "cp": all_of_it.cp,
            "cp and sha256": all_of_it.cp_sha256,
            "cp, flush and sha256": all_of_it.cp_flush_sha256,
            "push": all_of_it.push,
            "fetch into a cache": all_of_it.fetch,
        }
        for _ in range(rounds):
            for memory in MEMORY:
                for stage, run in stages.items():
                    prepare(all_of_it.read, is_warm=memory == "warm")
                    taken.setdefault((stage, memory), []).append(seconds(run))
                    all_of_it.tidy()
                store.remove(Reference("m", store.versions("m")[0].version))
        all_of_it.source.unlink()
    for stage in stages:
        rates = (_measure.Spread(tuple(mib / s for s in taken[stage, m])) for m in MEMORY)
        print("{:21} cold {!s:>33} MiB/s, warm {!s:>33} MiB/s".format(stage, *rates))
    for stage, base in (
        ("push", "cp, flush and sha256"),
        ("push", "cp and sha256"),
        ("fetch into a cache", "cp and sha256"),
    ):
        for memory in MEMORY:
            pairs = zip(taken[base, memory], taken[stage, memory], strict=True)
            ratios = _measure.Spread(tuple(without / ours for without, ours in pairs))
            print(f"speed of {stage}, {memory}: {ratios} x {base}")


def prepare(paths: Sequence[Path], *, is_warm: bool) -> None:
    """Has the disk owe nothing to anybody, and memory hold these files or nothing of them."""
    os.sync()
    for path in paths:
        with path.open("rb") as file:
            if is_warm:
                while file.read(1 << 24):
                    pass
            else:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(run: Callable[[], object]) -> float:
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


def many(place: Path, versions: int, rounds: int) -> None:
    """Lists and aliases of a store with many versions."""
    with open_store(str(place / "many"), may_create=True) as store:
        fill(store, versions)
        store.alias("m", "champion", versions // 2)
        for name, run in (
            ("list of all versions", lambda: store.versions("m")),
            ("list of 50 versions", lambda: store.versions("m", 50)),
            ("list of models", store.models),
            ("alias resolved", lambda: store.resolve(Reference("m", alias="champion"))),
        ):
            print(f"{name:21} {spread(run, 4 * rounds)} ms, {versions} versions")


def fill(store: Store, versions: int) -> None:
    """Many versions in one transaction: their bytes do not matter here."""
    from penstock.store.manifest import FileEntry
    from penstock.store.registry import add_version

    with store.database.write() as connection:
        for number in range(versions):
            sha256 = hashlib.sha256(str(number).encode()).hexdigest()
            manifest = Manifest.of([FileEntry("version/model.onnx", 1, sha256)])
            add_version(connection, describe(manifest))


def follow(place: Path, rounds: int) -> None:
    """From an alias that moves to the first answer of the other version."""
    url = str(place / "store")
    with open_store(url, may_create=True) as store:
        (place / "digits.onnx").write_bytes(train().onnx)
        for _ in range(2):
            request = PushRequest(name="digits", path=place / "digits.onnx")
            push_model(store, request, inspect_model, place)
        store.alias("digits", "champion", 1)
        store.deploy(Reference("digits", alias="champion"), "prod")
        command = [sys.executable, "-m", "penstock", "serve", "--store", url]
        command += ["--environment", "prod", "--store-cache", str(place / "cache")]
        command += ["--grpc-address", f"unix:{place}/s", "--http-port", "0", "--metrics-port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            while "is ready" not in process.stderr.readline():
                assert process.poll() is None, "the server ended"
            with penstock_client.Client(f"unix:{place}/s") as client:
                taken = [move(store, client, 2 - number % 2) for number in range(rounds)]
            process.terminate()
            process.stderr.read()
    print(f"alias moved to new version serving {_measure.Spread(tuple(taken))} s, digits")


def move(store: Store, client: penstock_client.Client, version: int) -> float:
    image = {"X": np.zeros((1, 64), np.float32)}
    begin = time.monotonic()
    store.alias("digits", "champion", version)
    while client.infer("digits", image).model_version != str(version):
        pass
    return time.monotonic() - begin


if __name__ == "__main__":
    main()
