"""The model store: a large push and fetch beside cp and sha256, lists, and following an alias.

Run: .venv/bin/python bench/store.py [--mib 1024] [--versions 10000] [--rounds 5]

Push and fetch take turns with `cp` and then `sha256` of the same file on the same file system,
without and with a flush to the disk: a push flushes before it says that it is done, cp never does,
and a fetch into a cache need not. Each begins when all that was written before is on the disk, and
what it made is gone before the next: nobody pays for the other's pages. Lists and aliases are those
of a store of many versions on SQLite. Following is the time from the call that moves an alias to
the first answer of the new version, digits, poll every 0.5 s.
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
from collections.abc import Callable
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
    """Seconds that it takes."""
    taken = []
    for _ in range(rounds):
        begin = time.monotonic()
        run()
        taken.append(time.monotonic() - begin)
    return _measure.Spread(tuple(taken))


def describe(manifest: Manifest) -> NewVersion:
    return NewVersion(
        model="m", digest=manifest.digest, files=manifest.files, creator="bench", owner="bench"
    )


def large(place: Path, mib: int, rounds: int) -> None:
    """Push and fetch of one large file, in turn with what anybody would do without a store."""
    source = place / "source.onnx"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(1 << 20))
    files = [SourceFile("version/model.onnx", source)]
    taken: dict[str, list[float]] = {}
    with open_store(str(place / "large"), may_create=True) as store:
        runs = {
            "cp and sha256": lambda: copy(source, place / "copy", flushes=False),
            "cp, flush and sha256": lambda: copy(source, place / "copy", flushes=True),
            "push": lambda: push(store, files),
            "fetch into a cache": lambda: fetch(store, place / "cache"),
        }
        for _ in range(rounds):
            for name, run in runs.items():
                taken.setdefault(name, []).append(after_sync(run))
                (place / "copy").unlink(missing_ok=True)
            shutil.rmtree(place / "cache")
            store.remove(Reference("m", store.versions("m")[0].version))
    source.unlink()
    for name, each in taken.items():
        print(f"{name:25} {_measure.Spread(tuple(each))} s, {mib} MiB")
    for name, base in (
        ("push", "cp, flush and sha256"),
        ("push", "cp and sha256"),
        ("fetch into a cache", "cp and sha256"),
    ):
        ratios = [b / a for a, b in zip(taken[name], taken[base], strict=True)]
        print(f"speed of {name}: {_measure.Spread(tuple(ratios))} x {base}")


def after_sync(run: Callable[[], object]) -> float:
    """Seconds that it takes once the disk owes nothing to anybody."""
    os.sync()
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


def copy(source: Path, target: Path, *, flushes: bool) -> None:
    subprocess.run(["cp", str(source), str(target)], check=True)
    with target.open("rb") as file:
        if flushes:
            os.fsync(file.fileno())
        hashlib.file_digest(file, "sha256")


def fetch(store: Store, place: Path) -> None:
    cache = ArtifactCache(place, 0)
    cache.open()
    cache.fetch(store.show(Reference("m")), store.artifacts)
    cache.close()


def push(store: Store, files: list[SourceFile]) -> None:
    store.push(files, describe)


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
            print(f"{name:33} {spread(run, 4 * rounds)} s, {versions} versions")


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
