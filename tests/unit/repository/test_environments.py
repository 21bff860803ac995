from pathlib import Path

import pytest

from penstock.errors import ConfigError, FailedPreconditionError
from penstock.repository.environments import LOCK_FILENAME, Environments, EnvironmentSettings
from penstock.repository.layout import ModelDirectory

# Stands for an interpreter: `-m venv` makes a bin/python that does what `pip` says.
INTERPRETER = """#!/bin/sh
echo "$@" >> {log}
case "$1" in
  -I) echo "{version}";;
  -m) mkdir -p "$3/bin"; printf '#!/bin/sh\\necho "$@" >> {log}\\n{pip}\\n' > "$3/bin/python"
      chmod +x "$3/bin/python";;
esac
"""


class World:
    """A model with a lock, and environments made by a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.model = ModelDirectory("m", folder / "models", folder / "models" / "m", (1,))
        self.model.path.mkdir(parents=True)

    def environments(self, version: str = "3.11", pip: str = "exit 0") -> Environments:
        python = self.folder / "python"
        python.write_text(INTERPRETER.format(log=self.log, version=version, pip=pip))
        python.chmod(0o755)
        return Environments(EnvironmentSettings(self.folder / "environments", python))

    def lock(self, text: str = "numpy==2.0 --hash=sha256:00\n") -> None:
        (self.model.path / LOCK_FILENAME).write_text(text)

    def built(self) -> list[Path]:
        return [each for each in (self.folder / "environments").iterdir() if each.is_dir()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_model_without_a_lock_needs_no_environment(world: World) -> None:
    environments = world.environments()
    assert environments.interpreter_of(world.model) is None
    assert environments.prepare(world.model) is False


def test_missing_environment_says_which_command_builds_it(world: World) -> None:
    world.lock()
    with pytest.raises(FailedPreconditionError, match="penstock check --prepare"):
        world.environments().interpreter_of(world.model)


def test_prepared_environment_is_found_and_not_built_again(world: World) -> None:
    world.lock()
    environments = world.environments()
    assert environments.prepare(world.model) is True
    assert environments.prepare(world.model) is False
    (place,) = world.built()
    assert environments.interpreter_of(world.model) == place / "bin" / "python"
    assert "--require-hashes" in world.log.read_text()


def test_key_is_the_lock_and_the_interpreter(world: World) -> None:
    world.lock()
    assert world.environments().prepare(world.model) is True
    assert world.environments(version="3.12").prepare(world.model) is True
    world.lock("numpy==2.1 --hash=sha256:11\n")
    with pytest.raises(FailedPreconditionError):
        world.environments().interpreter_of(world.model)
    assert len(world.built()) == 2


def test_failed_installation_says_why_and_leaves_nothing(world: World) -> None:
    world.lock()
    environments = world.environments(pip="echo no such package; exit 1")
    with pytest.raises(ConfigError, match="cannot be filled: no such package"):
        environments.prepare(world.model)
    assert world.built() == []
    with pytest.raises(FailedPreconditionError):
        environments.interpreter_of(world.model)


def test_interpreter_that_cannot_be_run_is_a_fault(world: World) -> None:
    world.lock()
    settings = EnvironmentSettings(world.folder, Path("/nowhere/python"))
    with pytest.raises(ConfigError, match="cannot be run: No such file") as raised:
        Environments(settings).prepare(world.model)
    assert "nowhere" not in str(raised.value)


def test_environment_without_numpy_is_refused(world: World) -> None:
    world.lock("# nothing\n")
    environments = world.environments(pip='test "$1" != -c || { echo no numpy; exit 1; }')
    with pytest.raises(ConfigError, match="cannot be used: no numpy"):
        environments.prepare(world.model)
