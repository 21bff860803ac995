"""Imports that are done again, and registries in which something is broken."""

from pathlib import Path

import pytest

from penstock.store.importing import Outcome, import_found, triton_versions
from penstock.store.mlflow_registry import mlflow_versions
from penstock.store.pushing import Inspection
from penstock.store.records import Reference
from penstock.store.store import Store, open_store


def inspect(_name: str, _repository: Path) -> Inspection:
    return Inspection("onnxruntime")


def repository(root: Path, content: str) -> Path:
    (root / "m" / "1").mkdir(parents=True, exist_ok=True)
    (root / "m" / "1" / "model.onnx").write_text(content)
    return root


def imported(store: Store, root: Path) -> Outcome:
    (outcome,) = import_found(store, triton_versions(root, {}), inspect)
    return outcome


def test_same_name_with_other_bytes_is_a_new_version(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), may_create=True) as store:
        one, two = repository(tmp_path / "one", "1"), repository(tmp_path / "two", "2")
        for root, reference, is_new in (
            (one, "m@1", True),
            (one, "m@1", False),
            (two, "m@2", True),
            (two, "m@2", False),
        ):
            found = imported(store, root)
            assert (found.reference, found.is_new, found.fault) == (reference, is_new, "")


def test_removed_version_is_imported_anew_and_a_damaged_one_is_a_fault(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), may_create=True) as store:
        root = repository(tmp_path / "models", "1")
        imported(store, root)
        store.remove(Reference("m", 1))
        again = imported(store, root)
        assert [again.fault, again.reference, again.is_new] == ["", "m@2", True]
        store.quarantine(store.show(Reference("m", 2)), "it was damaged")
        damaged = imported(store, root)
        assert not damaged.is_new and "m@2 is quarantined" in damaged.fault


@pytest.mark.parametrize(
    ("content", "fault"),
    [("time: 2026-13-45\n", "is not YAML"), (None, "no such file")],
)
def test_broken_version_of_mlflow_does_not_keep_the_others_out(
    tmp_path: Path, content: str | None, fault: str
) -> None:
    place = tmp_path / "models" / "m"
    for number in (1, 2):
        (place / f"version-{number}").mkdir(parents=True)
    (place / "meta.yaml").write_text("name: m\n")
    if content is not None:
        (place / "version-1" / "meta.yaml").write_text(content)
    (place / "version-2" / "meta.yaml").write_text("version: 2\nstatus: PENDING\n")
    first, second = mlflow_versions(tmp_path, {})
    assert fault in first.fault and first.request is None
    assert second.fault == "its status is PENDING, not READY"
