"""`penstock import`: repositories of Triton's and registries of MLflow's, with what they know."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from tests.support.cli import penstock
from tests.support.models.onnx_files import add_constant

from penstock.store.records import Reference
from penstock.store.store import open_store

pytestmark = pytest.mark.any_transport


def write(root: Path, files: dict[str, object]) -> None:
    """Files of text, or of YAML where it is not text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))


def model_at(directory: Path, constant: float) -> Path:
    directory.mkdir(parents=True)
    onnx.save(add_constant(constant), directory / "model.onnx")
    return directory


def logged(directory: Path, constant: float, **more: object) -> Path:
    """A model as mlflow.onnx logs it."""
    model_at(directory, constant)
    write(directory, {"MLmodel": {"flavors": {"onnx": {"data": "model.onnx"}}, **more}})
    return directory


async def imported(kind: str, root: Path, store: str, *more: str, code: int = 0) -> list[Any]:
    end = await penstock("import", kind, str(root), "--store", store, "--json", *more)
    assert end.code == code, end.err
    found: list[Any] = json.loads(end.out)
    return found


async def test_triton_repository_comes_with_all_versions_once(tmp_path: Path) -> None:
    root, store = tmp_path / "models", str(tmp_path / "store")
    for number in (2, 10):
        model_at(root / "adder" / f"{number}", float(number))
    (root / "adder" / "config.pbtxt").write_text('name: "adder" backend: "onnxruntime"')
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"none")
    (root / "empty").mkdir()
    found = await imported("triton", root, store, code=1)
    assert [(each["origin"], each["reference"]) for each in found] == [
        ("triton:adder@2", "adder@1"),
        ("triton:adder@10", "adder@2"),
        ("triton:broken@1", ""),
        ("triton:empty", ""),
    ]
    assert "'broken' would not load" in found[2]["fault"]
    assert found[3]["fault"] == "it has no versions"
    model_at(root / "adder" / "11", 11.0)
    again = await imported("triton", root, store, "--model", "adder")
    assert [each["is_new"] for each in again] == [False, False, True]
    with open_store(store) as opened:
        record = opened.show(Reference("adder", 3))
        assert record.tags == {"imported": "triton:adder@11"}
        assert {each.path for each in record.files} == {"config.pbtxt", "version/model.onnx"}
        assert record.links_of("code") == ()  # where it lies says nothing of who made it


async def test_directory_that_is_no_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for kind, fault in (("triton", "has no models: is it"), ("mlflow", "no registered models")):
        place = str(tmp_path / "none")
        end = await penstock("import", kind, place, "--store", str(tmp_path / "s"))
        assert end.code == 1 and fault in end.err, end.err
    model_at(tmp_path / "models" / "m" / "1", 1.0)
    arguments = ("--model", "other", "--store", str(tmp_path / "s"))
    end = await penstock("import", "triton", str(tmp_path / "models"), *arguments)
    assert end.code == 1 and "has no model 'other'" in end.err


def registry(root: Path) -> None:
    """Two versions: one of a run, one of a logged model of MLflow 3; and one not ready."""
    run = root / "7" / "c0ffee01"
    logged(run / "artifacts" / "model", 1.0, run_id="c0ffee01")
    logged(root / "7" / "models" / "m-abc" / "artifacts", 2.0)
    versions = "models/fraud model/version-"
    away = "file:///home/else/mlruns/7/c0ffee01/artifacts/model"  # the store was moved here
    write(
        root,
        {
            "models/fraud model/meta.yaml": {"name": "fraud model", "description": "of cards"},
            "models/fraud model/tags/team": "risk",
            "models/fraud model/aliases/champion": "1",
            f"{versions}1/meta.yaml": {
                **{"name": "fraud model", "version": 1, "source": away, "run_id": "c0ffee01"},
                **{"status": "READY", "current_stage": "Production", "user_id": "ada"},
            },
            f"{versions}1/tags/validated": "yes",
            f"{versions}2/meta.yaml": {"version": 2, "source": "models:/m-abc", "status": 2},
            f"{versions}3/meta.yaml": {"version": 3, "source": away, "status": "PENDING"},
            f"{versions}4/meta.yaml": {"version": 4, "source": "s3://key:secret@b/x"},
            f"{versions}5/meta.yaml": {"version": 5, "current_stage": "Deleted_Internal"},
            "7/c0ffee01/meta.yaml": {"run_id": "c0ffee01"},
            "7/c0ffee01/params/depth": "6",
            "7/c0ffee01/metrics/auc": "1 0.5 0\n2 0.93 1 cards d1\n3 0.7 0\n",
            "7/c0ffee01/metrics/loss": "1 nan 0\n",
            "7/c0ffee01/tags/mlflow.source.git.commit": "0a1b2c",
            "7/c0ffee01/tags/mlflow.source.git.repoURL": "https://ada:secret@example.org/repo",
            "7/c0ffee01/tags/mlflow.source.git.branch": "main",
            "7/c0ffee01/inputs/1/meta.yaml": {"source_id": "d"},
            "7/datasets/d/meta.yaml": {
                **{"name": "cards", "digest": "d1"},
                "source": json.dumps({"uri": "s3://lake/cards?token=secret"}),
            },
        },
    )


async def test_mlflow_registry_comes_with_what_it_knows(tmp_path: Path) -> None:
    root, store = tmp_path / "mlruns", str(tmp_path / "store")
    registry(root)
    rename = ("--model", "fraud model=fraud")
    found = await imported("mlflow", root, store, *rename, code=1)
    assert [each["reference"] for each in found] == ["fraud@1", "fraud@2", "", ""]
    assert found[2]["fault"] == "its status is PENDING, not READY"
    assert found[3]["fault"] == "its model is not on this machine: it is at 's3://b/x'"
    with open_store(store) as opened:
        first = opened.show(Reference("fraud", alias="champion"))
        second = opened.show(Reference("fraud", 2))
    assert (first.version, first.description) == (1, "of cards")
    assert first.tags == {
        **{"team": "risk", "validated": "yes", "imported": "mlflow:fraud model@1"},
        **{"mlflow.stage": "Production", "mlflow.user": "ada"},
    }
    (run,) = first.links_of("run")
    assert (run.name, run.details["params"]) == ("c0ffee01", {"depth": "6"})
    (code,) = first.links_of("code")
    assert (code.uri, code.revision) == ("https://example.org/repo", "0a1b2c")
    (data,) = first.links_of("data")
    assert (data.name, data.uri, data.digest) == ("cards", "s3://lake/cards", "d1")
    (metric,) = first.metrics
    assert (metric.name, metric.value, metric.dataset) == ("auc", 0.93, "cards")
    assert metric.dataset_digest == "d1"
    assert second.links == () and second.source_format == "mlflow"
    assert "secret" not in repr((first, second))
    assert b"secret" not in (tmp_path / "store" / "store.db").read_bytes()
    (root / "models/fraud model/aliases/champion").write_text("2")
    again = await imported("mlflow", root, store, *rename, code=1)
    assert [each["is_new"] for each in again] == [False] * 4
    with open_store(store) as opened:
        assert opened.resolve(Reference("fraud", alias="champion")) == 2
