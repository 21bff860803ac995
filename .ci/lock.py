"""Writes requirements.lock, with hashes, from the pyproject.toml files; run by `make lock`.

Pins already in the lock are kept as long as they satisfy what is asked; extra arguments go to
pip-compile (`--upgrade`, `--upgrade-package NAME`). Our own distributions are left out: they come
from this tree.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN = {"penstock", "penstock-client", "penstock-gateway", "penstock[batch]", "penstock[store]"}


def requirements(pyproject: Path) -> set[str]:
    """Everything a pyproject.toml asks for: to build, to run, each extra and each group."""
    content = tomllib.loads(pyproject.read_text())
    project = content["project"]
    lists = [
        content["build-system"]["requires"],
        project["dependencies"],
        *project.get("optional-dependencies", {}).values(),
        *content.get("dependency-groups", {}).values(),
    ]
    return {entry for entries in lists for entry in entries if entry not in OWN}


def main() -> None:
    """Collects and compiles."""
    wanted = requirements(ROOT / "pyproject.toml")
    for client in ("python", "gateway"):
        wanted |= requirements(ROOT / "clients" / client / "pyproject.toml")
    command = [sys.executable, "-m", "piptools", "compile", "-", "--quiet", "--generate-hashes"]
    command += ["--allow-unsafe", "--strip-extras", "--no-annotate", "--no-header"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"]
    command += ["--output-file", "requirements.lock", *sys.argv[1:]]
    subprocess.run(command, input="\n".join(sorted(wanted)), text=True, check=True, cwd=ROOT)


main()
