"""The Airflow DAG, Argo workflow and Kubeflow component of server/README.md, without their servers.

What they run is run as it is written; the schedulers' own parts are stood in for.
"""

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.labelled import Digits

from penstock.store.pushing import PushRequest, push_model
from penstock.store.store import open_store
from penstock.stored import inspect_model

pytestmark = [pytest.mark.any_transport, pytest.mark.lengthy]

README = (Path(__file__).parents[2] / "server" / "README.md").read_text()
(DAG,) = re.findall(
    r"^```python\n(import subprocess\n[^`]*from airflow.*?)^```$", README, re.M | re.S
)
(WORKFLOW,) = re.findall(r"^```yaml\n(apiVersion: argoproj.*?)^```$", README, re.M | re.S)
(COMPONENT,) = re.findall(r"^```yaml\n(name: Label digits\n.*?)^```$", README, re.M | re.S)


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digits:
    """The example's files, in the directory that commands run in; `penstock` is this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Digits(tmp_path)


class TryAgainError(Exception):
    """Stands in for AirflowException."""


class FailError(TryAgainError):
    """Stands in for AirflowFailException."""


class Airflow:
    """Runs a DAG's mapped tasks where Airflow would schedule them."""

    def __init__(self) -> None:
        self.retries: list[int] = []
        self.raised: list[type[Exception]] = []

    def dag(self, **_: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
        return lambda make: make

    def task(self, *, retries: int, **_: Any) -> Callable[[Callable[..., None]], Any]:
        self.retries.append(retries)

        def mapped(run: Callable[..., None]) -> Any:
            def expand(shard: list[str]) -> None:
                for each in shard:
                    try:
                        run(each, ds="2025-01-01")
                    except TryAgainError as error:
                        self.raised.append(type(error))

            return types.SimpleNamespace(expand=expand)

        return mapped


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    stand_in = Airflow()
    package, decorators, exceptions = (
        types.ModuleType(f"airflow{name}") for name in ("", ".decorators", ".exceptions")
    )
    decorators.__dict__.update(dag=stand_in.dag, task=stand_in.task)
    exceptions.__dict__.update(AirflowException=TryAgainError, AirflowFailException=FailError)
    for module in (package, decorators, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield stand_in


def test_dag_labels_every_row_and_again_is_done_already(
    digits: Digits, airflow: Airflow, tmp_path: Path
) -> None:
    exec(compile(DAG, "label.py", "exec"), {})
    assert (airflow.raised, airflow.retries) == ([], [5])
    (tmp_path / "labels-2025-01-01").rename(tmp_path / "labels")
    digits.check()


def test_dag_tries_again_what_may_pass_and_nothing_else(
    digits: Digits, airflow: Airflow, tmp_path: Path
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    os.environ["PATH"] = f"{commands}:{os.environ['PATH']}"  # the fixture restores it
    for code, raised in ((75, TryAgainError), (2, FailError)):
        (commands / "penstock").write_text(f"#!/bin/sh\nexit {code}\n")
        (commands / "penstock").chmod(0o755)
        airflow.raised.clear()
        exec(compile(DAG, "label.py", "exec"), {})
        assert airflow.raised == [raised] * 4


@pytest.mark.slow
def test_workflow_labels_every_row(digits: Digits) -> None:
    spec = yaml.safe_load(WORKFLOW)["spec"]
    templates = {each["name"]: each for each in spec["templates"]}
    ((step,),) = templates[spec["entrypoint"]]["steps"]
    ((name, value),) = (each.values() for each in step["arguments"]["parameters"])
    template = templates[step["template"]]
    assert [each["name"] for each in template["inputs"]["parameters"]] == [name]
    assert "asInt(lastRetry.exitCode) == 75" in template["retryStrategy"]["expression"]
    container = template["container"]
    (mount,) = container["volumeMounts"]
    assert mount["mountPath"] == container["workingDir"]
    assert mount["name"] in [volume["name"] for volume in spec["volumes"]]
    for item in range(int(step["withSequence"]["count"])):
        shard = value.replace("{{item}}", str(item))
        words = [
            word.replace("{{inputs.parameters.shard}}", shard)
            for word in (*container["command"], *container["args"])
        ]
        assert not any("{{" in word for word in words)
        subprocess.run(words, check=True)
    digits.check()


@pytest.mark.slow
def test_component_labels_by_a_version_of_the_store(digits: Digits, tmp_path: Path) -> None:
    component = yaml.safe_load(COMPONENT)
    store = str(tmp_path / "store")
    with open_store(store, may_create=True, actor="tester") as opened:
        request = PushRequest(name="digits", path=tmp_path / "models" / "digits", aliases=("prod",))
        push_model(opened, request, inspect_model, tmp_path)
    given = {each["name"]: each.get("default") for each in component["inputs"]}
    given |= {"model": "digits@prod", "store": store, "images": "images.parquet"}
    given |= {"labels": "labels"}
    words = [
        word if isinstance(word, str) else given.pop(word["inputValue"])
        for word in component["implementation"]["container"]["command"]
    ]
    assert given == {}  # every input is used, once
    subprocess.run([*words, "--store-cache", "cache"], check=True)
    digits.check()
    manifest = json.loads((tmp_path / "labels" / "manifest.json").read_text())
    assert manifest["job"]["model"]["digest"].startswith("sha256:")
