"""House rules a linter does not know: nothing sleeps, nothing outgrows its file or its screen."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = ("server", "csrc", "proto", "clients", "tests", "bench", ".ci")
LINES = {".h": 250, ".cc": 500, ".cu": 500, ".py": 400}
TEST_LINES = 400
DISTRIBUTIONS = ("python", "gateway")
FUNCTION_LINES = 60

CXX_SLEEP = re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\(")


def sources(*trees: str) -> Iterator[Path]:
    """What we wrote ourselves in these trees: no products, no caches."""
    for path in sorted(p for tree in trees for p in (ROOT / tree).rglob("*")):
        if path.suffix in LINES and not {"_proto", "build"} & set(path.relative_to(ROOT).parts):
            yield path


def sleeps(tree: ast.AST) -> bool:
    """Whether anything named sleep is called or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "sleep":
            return True
        if isinstance(node, ast.ImportFrom) and any(a.name == "sleep" for a in node.names):
            return True
    return False


def without_comments(source: str) -> str:
    """C++ source without its comments, where words are free."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)


def is_sleepy(path: Path) -> bool:
    """Whether the source calls a sleep of its language."""
    text = path.read_text()
    if path.suffix == ".py":
        return sleeps(ast.parse(text))
    return CXX_SLEEP.search(without_comments(text)) is not None


def allowed_lines(path: Path) -> int:
    """How long the file may be."""
    return TEST_LINES if path.is_relative_to(ROOT / "tests") else LINES[path.suffix]


def long_functions(tree: ast.AST) -> list[str]:
    """Python functions over the hard stop, docstring and all."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES
    ]


def test_nothing_sleeps_in_server_or_core() -> None:
    assert [path for path in sources("server", "csrc") if is_sleepy(path)] == []


def test_no_file_outgrows_its_limit() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*TREES)}
    assert lengths
    assert [(p, n) for p, n in lengths.items() if n > allowed_lines(p)] == []


def test_nothing_is_a_link() -> None:
    """A link to somewhere else on the machine that it was made on is nothing in another clone."""
    ours = [*ROOT.iterdir(), *(path for tree in TREES for path in (ROOT / tree).rglob("*"))]
    assert [path for path in ours if path.is_symlink()] == []


def test_no_python_function_outgrows_a_screen() -> None:
    trees = {p: ast.parse(p.read_text()) for p in sources(*TREES) if p.suffix == ".py"}
    assert {p: long_functions(tree) for p, tree in trees.items() if long_functions(tree)} == {}


def test_every_package_folder_is_a_package() -> None:
    # Wheels are made of folders with an __init__.py; an editable install would hide a missing one.
    modules = [p for p in sources("server", "clients") if p.suffix == ".py"]
    folders = {p.parent for p in modules} - {ROOT / "clients" / each for each in DISTRIBUTIONS}
    assert folders
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    "line", ["await asyncio.sleep(0)", "from time import sleep", "time.sleep(1)"]
)
def test_sleep_checker_reports(line: str) -> None:
    assert sleeps(ast.parse(line))


@pytest.mark.parametrize("source", ["std::this_thread::sleep_for(1ms);", "usleep (5);"])
def test_cxx_sleep_checker_reports(tmp_path: Path, source: str) -> None:
    path = tmp_path / "a.cc"
    path.write_text(f"// sleep() in a comment is fine\n{source}\n")
    assert is_sleepy(path)
    path.write_text("// sleep() in a comment is fine\n")
    assert not is_sleepy(path)


def test_function_checker_reports_61_lines() -> None:
    body = "\n".join(["    x = 1"] * FUNCTION_LINES)
    assert long_functions(ast.parse(f"def f():\n{body}")) == ["f"]
    assert long_functions(ast.parse(f"def f():\n{body[:-10]}")) == []
