"""A registry behind a tracking server: all that it knows comes, and nothing that it makes up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.mlflow_rest import FakeServer, fake_server

from penstock.store.failures import RefusedError, StoreUnavailableError
from penstock.store.importing import Outcome, import_found
from penstock.store.mlflow_client import TrackingServer
from penstock.store.mlflow_server import server_versions
from penstock.store.pushing import Inspection
from penstock.store.records import Reference
from penstock.store.store import Store, open_store

PLACE = "1/models/m-abc/artifacts"
MLMODEL = b"flavors: {onnx: {data: model.onnx}}\nsignature: {inputs: '[]'}\n"
MODEL = {"MLmodel": MLMODEL, "model.onnx": b"onnx"}


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """Of one model with one version, of which everything is known."""
    with fake_server() as server:
        model = {
            **{"name": "fraud model", "description": "of cards"},
            "tags": [{"key": "team", "value": "risk"}],
            "aliases": [{"alias": "champion", "version": "1"}],
        }
        version = {
            **{"name": "fraud model", "version": "1", "status": "READY", "current_stage": "None"},
            **{"source": "models:/m-abc", "run_id": "r1", "description": ""},
            "tags": [{"key": "validated", "value": "yes"}],
        }
        server.answers = {
            "registered-models/search": {"registered_models": [model]},
            "registered-models/get?name=fraud model": {"registered_model": model},
            "model-versions/search": {"model_versions": [version]},
            "model-versions/get-download-uri": {"artifact_uri": f"mlflow-artifacts:/{PLACE}"},
            "runs/get": {"run": run()},
            "logged-models/m-abc": {"model": {"data": {"metrics": [measured(), *unmeasured()]}}},
        }
        server.model(PLACE, MODEL)
        yield server


def run() -> dict[str, Any]:
    git = "mlflow.source.git."
    tags = {f"{git}commit": "0a1b2c", f"{git}repoURL": "https://ada:secret@example.org/repo"}
    source = json.dumps({"uri": "s3://lake/cards?token=secret"})
    dataset = {"name": "cards", "digest": "d1", "source_type": "s3", "source": source}
    return {
        "data": {
            "metrics": unmeasured(),
            "params": [{"key": "depth", "value": "6"}],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        },
        "inputs": {"dataset_inputs": [{"dataset": dataset}]},
    }


def measured() -> dict[str, Any]:
    return {"key": "auc", "value": 0.93, "dataset_name": "cards", "dataset_digest": "d1"}


def unmeasured() -> list[dict[str, Any]]:
    return [{"key": "auc", "value": 0.95, "step": 2}, {"key": "loss", "value": "NaN", "step": 0}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "store"), may_create=True) as opened:
        yield opened


def inspect(_name: str, _repository: Path) -> Inspection:
    return Inspection("onnxruntime")


def imported(store: Store, fake: FakeServer, *names: str) -> list[Outcome]:
    names_here = dict.fromkeys(names or ("fraud model",), "fraud")
    return list(import_found(store, server_versions(TrackingServer(fake.url), names_here), inspect))


def test_version_comes_with_what_the_server_knows(
    store: Store, fake: FakeServer, tmp_path: Path
) -> None:
    (outcome,) = imported(store, fake)
    assert (outcome.origin, outcome.reference) == ("mlflow:fraud model@1", "fraud@1")
    record = store.show(Reference("fraud", alias="champion"))
    assert record.description == "of cards" and record.source_format == "mlflow"
    assert record.tags == {"team": "risk", "validated": "yes", "imported": outcome.origin}
    (found,) = record.links_of("run")
    assert (found.name, found.details["params"]) == ("r1", {"depth": "6"})
    (code,), (data,) = record.links_of("code"), record.links_of("data")
    assert (code.uri, code.revision) == ("https://example.org/repo", "0a1b2c")
    assert (data.name, data.uri, data.digest) == ("cards", "s3://lake/cards", "d1")
    metrics = [(each.name, each.value, each.dataset_digest) for each in record.metrics]
    assert metrics == [("auc", 0.95, ""), ("auc", 0.93, "d1")]
    assert record.runtime["mlflow"]["signature"] == {"inputs": "[]"}
    assert {each.path for each in record.files} == {"MLmodel", "version/model.onnx"}
    assert b"secret" not in (tmp_path / "store" / "store.db").read_bytes()
    assert not imported(store, fake)[0].is_new


def test_versions_come_page_by_page_and_in_order(store: Store, fake: FakeServer) -> None:
    (first,) = fake.answers["model-versions/search"]["model_versions"]
    fake.answers["model-versions/search"] = {
        "model_versions": [{**first, "version": "10"}],
        "next_page_token": "two",
    }
    fake.answers["model-versions/search?page_token=two"] = {"model_versions": [first]}
    origins = [each.origin for each in imported(store, fake)]
    assert origins == ["mlflow:fraud model@1", "mlflow:fraud model@10"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".", "", "a\0b", None, 3])
def test_file_whose_name_leads_elsewhere_is_refused(
    store: Store, fake: FakeServer, name: object
) -> None:
    fake.listings[PLACE].append({"path": name, "is_dir": False, "file_size": 1})
    (outcome,) = imported(store, fake)
    assert outcome.reference == "" and "has a file that is refused" in outcome.fault


def test_directory_without_end_is_refused(store: Store, fake: FakeServer) -> None:
    def endless(target: str) -> tuple[int, bytes]:
        if "artifacts?" in target:
            return 200, b'{"files": [{"path": "d", "is_dir": true}]}'
        return FakeServer.answer(fake, target)

    fake.answer = endless  # type: ignore[method-assign]
    (outcome,) = imported(store, fake)
    assert "has a file that is refused" in outcome.fault and "parts" in outcome.fault


@pytest.mark.parametrize(("listed", "fault"), [(3, "more bytes than the 3"), (5, "fewer bytes")])
def test_file_that_is_not_as_long_as_listed_is_refused(
    store: Store, fake: FakeServer, listed: int, fault: str
) -> None:
    fake.listings[PLACE][1]["file_size"] = listed
    assert fault in imported(store, fake)[0].fault


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("s3://key:secret@bucket/x", "its model is at 's3://bucket/x': only what the tracking"),
        ("/etc", "its model is at '/etc': only what"),
        ("mlflow-artifacts://elsewhere:80/x", "only what the tracking server passes on"),
        ("mlflow-artifacts:/../../etc", "the place of its model is refused"),
        ("mlflow-artifacts:/none", "there is no MLmodel"),
    ],
)
def test_model_that_the_server_does_not_pass_on_is_told(
    store: Store, fake: FakeServer, uri: str, fault: str
) -> None:
    fake.answers["model-versions/get-download-uri"] = {"artifact_uri": uri}
    (outcome,) = imported(store, fake)
    assert fault in outcome.fault and "secret" not in outcome.fault


def test_model_that_would_have_to_be_unpickled_is_not_even_fetched(
    store: Store, fake: FakeServer
) -> None:
    fake.model(PLACE, {"MLmodel": b"flavors: {sklearn: {pickled_model: m.pkl}}"})
    fake.listings[PLACE].append({"path": "m.pkl", "is_dir": False, "file_size": 9})
    assert "none of them can be served without unpickling" in imported(store, fake)[0].fault


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_that_cannot_answer_now_ends_the_import_before_the_version(
    store: Store, fake: FakeServer, status: int
) -> None:
    """What it knows of the run would be lost: a version that is there is not imported again."""
    fake.answers["runs/get"] = status
    with pytest.raises(StoreUnavailableError, match=f"HTTP {status}"):
        imported(store, fake)
    assert store.models() == []


@pytest.mark.parametrize("answer", [404, {}, {"run": 3}, {"run": {"data": {"metrics": [1]}}}])
def test_run_that_is_gone_or_odd_keeps_no_version_out(
    store: Store, fake: FakeServer, answer: object
) -> None:
    fake.answers["runs/get"] = answer
    fake.answers["logged-models/m-abc"] = 404
    assert imported(store, fake)[0].reference == "fraud@1"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (404, "HTTP 404: as the test wants"),
        (401, "set MLFLOW_TRACKING_TOKEN"),
        (b"<html>", "is no tracking server of MLflow's"),
        (b"[]", "is no tracking server of MLflow's"),
        ({"registered_models": []}, "has no registered models"),
    ],
)
def test_server_that_has_no_registry_is_refused(
    fake: FakeServer, answer: object, fault: str
) -> None:
    fake.answers["registered-models/search"] = answer
    with pytest.raises(RefusedError, match=fault):
        list(server_versions(TrackingServer(fake.url), {}))


def test_unknown_model_is_refused(store: Store, fake: FakeServer) -> None:
    with pytest.raises(RefusedError, match="has no model 'other'"):
        imported(store, fake, "other")


def test_token_goes_to_the_server_and_not_where_it_redirects(fake: FakeServer) -> None:
    with fake_server() as other:
        fake.moved_to = f"{other.url}/?token=secret"
        server = TrackingServer(fake.url, {"MLFLOW_TRACKING_TOKEN": "t0k3n"})
        with pytest.raises(RefusedError, match="redirects to") as failure:
            server.get("runs/get", run_id="r1")
        assert fake.authorizations == ["Bearer t0k3n"] and other.authorizations == []
        assert "secret" not in str(failure.value) and "t0k3n" not in str(failure.value)


def test_user_and_password_are_those_of_the_environment(fake: FakeServer) -> None:
    names = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "x"}
    TrackingServer(fake.url, names).get("runs/get")
    assert fake.authorizations == ["Basic YWRhOng="]
    for url in ("http://ada:secret@host:1", "http://host:1/?token=secret", "ftp://host", "http://"):
        with pytest.raises(RefusedError) as failure:
            TrackingServer(url)
        assert "secret" not in str(failure.value)


def test_server_that_does_not_answer_ends_the_import() -> None:
    with fake_server() as gone:
        pass
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        list(server_versions(TrackingServer(gone.url), {}))
