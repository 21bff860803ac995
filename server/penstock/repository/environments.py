"""Virtual environments of Python models, from the locked requirements that they bring.

An environment is built once, by `penstock check --prepare`, and never at load: a load that needs
one that is not there fails and says so. Its key is what decides its contents: the lock's bytes, and
the interpreter. A directory is complete or absent: it is built beside its place and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import ConfigError, FailedPreconditionError
from penstock.repository.layout import ModelDirectory, read_text

LOCK_FILENAME = "requirements.lock"
"""In a model's directory: requirements with hashes, numpy among them."""

_IDENTITY = "import sys, sysconfig; print(sys.version, sysconfig.get_platform(), sys.base_prefix)"
_TAIL_LINES = 20
_PROBE_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """Where environments are.

    Attributes:
        directory: holds one per key.
        interpreter: that they are made with, and that runs models without one.
    """

    directory: Path
    interpreter: Path


class Environments:
    """Finds and builds environments.

    Threading: thread-safe. Blocking: every method; `prepare` downloads packages.
    """

    def __init__(self, settings: EnvironmentSettings) -> None:
        self._settings = settings

    def interpreter_of(self, model: ModelDirectory) -> Path | None:
        """The interpreter of a model's environment; None where it brings no lock.

        Raises:
            ConfigError: the lock cannot be read.
            FailedPreconditionError: its environment was not built.
        """
        lock = _read_lock(model)
        if lock is None:
            return None
        python = self._place(lock) / "bin" / "python"
        if not python.exists():
            raise FailedPreconditionError(
                f"the environment of its {LOCK_FILENAME} was not built: run "
                "`penstock check --prepare` for its repository, with this server's settings"
            )
        return python

    def prepare(self, model: ModelDirectory) -> bool:
        """Builds the environment of a model, if it brings a lock and it is not there.

        Returns:
            Whether one was built.

        Raises:
            ConfigError: the lock cannot be read, or its packages cannot be installed.
        """
        lock = _read_lock(model)
        if lock is None:
            return False
        place = self._place(lock)
        place.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(place.with_suffix(".busy")):
            if place.exists():
                return False
            self._build(lock, place)
        return True

    def _build(self, lock: str, place: Path) -> None:
        # Not moved afterwards but for its name: the scripts in it, which are not used, hold a path.
        new = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            (new / LOCK_FILENAME).write_text(lock)
            _run([str(self._settings.interpreter), "-m", "venv", str(new)], "made")
            pip = [str(new / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
            pip += ["--no-input", "install", "--require-hashes"]
            _run([*pip, "--no-deps", "-r", str(new / LOCK_FILENAME)], "filled")
            _run([str(new / "bin" / "python"), "-c", "import numpy"], "used")
            new.chmod(0o755)
            new.rename(place)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    def _place(self, lock: str) -> Path:
        identity = _output([str(self._settings.interpreter), "-I", "-c", _IDENTITY])
        key = hashlib.sha256("\0".join((identity, lock)).encode()).hexdigest()
        return self._settings.directory / key


def _read_lock(model: ModelDirectory) -> str | None:
    if not os.path.lexists(model.path / LOCK_FILENAME):
        return None
    return read_text(model, LOCK_FILENAME, LOCK_FILENAME)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """One process at a time; the file stays, as others may be waiting for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_PROBE_LIMIT_S
        )
    except OSError as error:
        raise _cannot_be_run(error.strerror or type(error).__name__) from error
    except subprocess.CalledProcessError as error:
        raise _cannot_be_run(f"it ended with code {error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise _cannot_be_run(f"it took longer than {_PROBE_LIMIT_S:.0f} s") from error
    return done.stdout


def _cannot_be_run(why: str) -> ConfigError:
    """A client may read it: no paths."""
    return ConfigError([f"{LOCK_FILENAME}: the interpreter cannot be run: {why}"])


def _run(command: list[str], what: str) -> None:
    """A step of building; what it printed is the reason where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    except OSError as error:
        raise ConfigError([f"{LOCK_FILENAME}: no environment can be {what}: {error}"]) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        text = "; ".join(lines[-_TAIL_LINES:])
        raise ConfigError([f"{LOCK_FILENAME}: the environment cannot be {what}: {text}"])
