"""The Dockerfile: no registry is at hand to build it with, so what it names is looked for here."""

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

from penstock.config import ServerConfig, setting_fields

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "server" / "deploy" / "docker"
# Comments go first: one may stand between the lines of an instruction.
LINES = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
INSTRUCTIONS = [
    line.split(maxsplit=1) for line in LINES.replace("\\\n", " ").splitlines() if line.strip()
]


def given(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def copied() -> list[str]:
    """What comes of this tree."""
    local = [shlex.split(each) for each in given("COPY") if not each.startswith("--from")]
    return [source for words in local for source in words[:-1]]


def test_there_are_two_stages_and_the_last_is_nobody_special() -> None:
    assert [each.split(" AS ")[1] for each in given("FROM")] == ["build", "runtime"]
    assert [each.split()[0] for each in given("COPY") if each.startswith("--from")] == [
        "--from=build"
    ]
    names = [name for name, _ in INSTRUCTIONS]
    assert given("USER") == ["10001:10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_everything_that_is_copied_exists_and_is_sent() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert copied()
    assert [each for each in copied() if not (ROOT / each).exists()] == []
    assert set(copied()) == sent
    assert "*" in ignored


def test_no_product_of_this_machine_is_sent() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for product in ("server/penstock/_core.so", "server/penstock/_proto", "csrc/build"):
        assert any(fnmatch(f"/{product}", each.replace("**", "*")) for each in ignored), product


def test_packages_of_the_build_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (wanted,) = re.findall(r"^BUILD_PACKAGES := (.*)$", makefile, re.MULTILINE)
    (run,) = [each for each in given("RUN") if "cmake" in each and "apt-get install" in each]
    assert set(wanted.split()) <= set(run.split())


def test_everything_the_build_needs_is_among_its_tools() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (requires,) = re.findall(r"^requires = \[(.*)\]$", project, re.MULTILINE)
    tools = next(each for each in given("RUN") if "/opt/tools/bin/pip install" in each).split()
    for name in re.findall(r'"([\w-]+)', requires):
        assert name in tools, name


def test_settings_and_ports_are_the_servers() -> None:
    known = {field.variable for field in setting_fields()}
    named = set(re.findall(r"\b(PENSTOCK_\w+)=", LINES))
    assert named and named <= known
    defaults = ServerConfig(model_repository=(Path("m"),))
    ports = {defaults.grpc_port, defaults.http_port, defaults.metrics_port}
    assert {int(port) for port in given("EXPOSE")[0].split()} == ports
    assert f"127.0.0.1:{defaults.http_port}/v2/health/ready" in given("HEALTHCHECK")[0]


def test_engine_for_gpus_comes_after_the_one_for_cpus_has_gone() -> None:
    runs = [rest for name, rest in INSTRUCTIONS if name == "RUN"]
    (server,) = [at for at, run in enumerate(runs) if "penstock[${EXTRAS}]" in run]
    (gpu,) = [at for at, run in enumerate(runs) if "onnxruntime-gpu" in run]
    assert server < gpu
    assert runs[gpu].index("uninstall -y onnxruntime ") < runs[gpu].index("onnxruntime-gpu[")
    names = [name for name, _ in INSTRUCTIONS]
    assert INSTRUCTIONS.index(["ARG", "ONNXRUNTIME_GPU="]) < len(names) - names[::-1].index("FROM")
