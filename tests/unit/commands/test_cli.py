"""The command line as a whole: help, version, usage errors, and how a failure is told."""

import importlib
import subprocess
import sys

import pytest
import typer
from typer.main import get_group
from typer.testing import CliRunner

from penstock import __version__
from penstock.commands._cli import FILES, Commands, app
from penstock.commands._failure import CommandError, CommandGroup
from penstock.errors import ConfigError, StartupError

RUNNER = CliRunner()


def failing_app(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=CommandGroup, rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.callback()
    def group() -> None:
        """With a callback one command is still named."""

    @app.command()
    def fail() -> None:
        raise error

    return app


def test_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"penstock {__version__}\n")


@pytest.mark.parametrize("command", ["serve", "infer", "models", "make-key", "demo", "check"])
def test_help_lists_every_command(command: str) -> None:
    assert f"\n  {command} " in RUNNER.invoke(app, ["--help"]).output
    result = RUNNER.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none"], "No such command"),
        (["infer"], "Missing argument"),
        (["infer", "m"], "no FILE and no --input"),
        (["infer", "m", "--input", "x"], "expected NAME=FILE, got 'x'"),
        (["infer", "m", "a.png", "--scale", "1/0"], "expected a number or a fraction"),
        (["infer", "m", "a.npy", "--batch-size", "-1"], "--batch-size"),
        (["serve", "--no-such-flag"], "No such option"),
        (["serve", "repo", "--grpc-port", "x"], "--grpc-port: expected int, got 'x'"),
        (["serve"], "--model-repository: at least one directory"),
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], text: str) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "Traceback" not in result.output


def test_all_faults_of_the_settings_are_told_at_once() -> None:
    result = RUNNER.invoke(app, ["serve", "repo", "--grpc-port=x", "--log-level=loud"])
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("Error: --") for line in lines)


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (CommandError("one", "two"), ["Error: one", "Error: two"]),
        (CommandError("of\nmany  \n lines"), ["Error: of many lines"]),
        (ConfigError(["a: wrong", "b: wrong"]), ["Error: a: wrong", "Error: b: wrong"]),
        (StartupError("port 1 is taken"), ["Error: port 1 is taken"]),
    ],
)
def test_failure_is_a_line_per_fault_and_exits_1(error: Exception, lines: list[str]) -> None:
    result = RUNNER.invoke(failing_app(error), ["fail"])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == lines
    assert result.stdout == ""


def test_interrupt_is_quiet() -> None:
    result = RUNNER.invoke(failing_app(KeyboardInterrupt()), ["fail"])
    assert (result.exit_code, result.output) == (130, "")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


SCRIPT = "import sys; sys.argv[1:] = ['--version']; from penstock.__main__ import main; main()"


@pytest.mark.parametrize(
    "arguments", [["-m", "penstock", "--version"], ["-c", SCRIPT]], ids=["module", "script"]
)
def test_module_and_script_do_the_same(arguments: list[str]) -> None:
    result = python(*arguments)
    assert (result.returncode, result.stdout) == (0, f"penstock {__version__}\n")


def test_interrupt_of_the_import_is_quiet() -> None:
    code = (
        "import sys\n"
        "from penstock.__main__ import main\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'penstock.commands': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()"
    )
    result = python("-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; from penstock.commands._cli import Commands\n"
        "print(len([*Commands().values()]), *sys.modules)"
    )
    count, *modules = python("-c", code).stdout.split()
    assert int(count) == len(Commands())
    assert "penstock.commands.serve" in modules
    heavy = {"numpy", "rich", "grpc", "penstock_client", "penstock._core", "sklearn"}
    assert heavy & set(modules) == set()


def test_command_imports_its_own_file_alone() -> None:
    code = "import sys; from penstock.commands._cli import Commands; Commands()['check']; "
    modules = set(python("-c", code + "print(*sys.modules)").stdout.split())
    imported = [file for file in FILES if f"penstock.commands.{file}" in modules]
    assert imported == ["check"]


def test_failure_of_a_commands_file_is_not_taken_for_an_unknown_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("penstock.commands._cli.import_module", fail)
    result = RUNNER.invoke(app, ["check", "--help"])
    assert isinstance(result.exception, KeyError)
    assert "No such command" not in result.output


@pytest.mark.parametrize("file", FILES)
def test_every_command_of_a_file_is_listed(file: str) -> None:
    some = typer.Typer()
    importlib.import_module(f"penstock.commands.{file}").add_to(some)
    assert list(get_group(some).commands) == FILES[file]


def test_missing_extra_is_one_line() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.argv = ['penstock', 'demo']\n"
        "from penstock.commands import main; main()"
    )
    result = python("-c", code)
    assert result.returncode == 1
    assert result.stderr == "Error: the demo needs sklearn: pip install 'penstock[demo]'\n"


def test_missing_pillow_is_one_line() -> None:
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from pathlib import Path\n"
        "from penstock.commands._images import read_image\n"
        "from penstock.commands._interface import InputInterface\n"
        "try: read_image(Path('a.png'), InputInterface('X', 'FP32', (64,), True), 1.0)\n"
        "except Exception as error: print(error)\n"
    )
    assert (
        python("-c", code).stdout == "reading a.png needs Pillow: pip install 'penstock[images]'\n"
    )
