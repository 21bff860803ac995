"""Where a store is, and that nobody is shown a secret."""

from pathlib import Path

import pytest

from penstock.store.failures import RefusedError
from penstock.store.location import locate, without_credentials


def test_directory_holds_database_and_artifacts() -> None:
    place = locate("models/store")
    assert place.sqlite_path == Path("models/store/store.db")
    assert (place.artifacts, place.shown) == (Path("models/store/artifacts"), "models/store")


def test_sqlite_url_names_the_file() -> None:
    place = locate("sqlite:////srv/x.db")
    assert (place.sqlite_path, place.artifacts) == (Path("/srv/x.db"), Path("/srv/artifacts"))
    assert locate("sqlite:///x.db?artifacts=/a").artifacts == Path("/a")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_postgresql_url_takes_the_artifacts_out(scheme: str) -> None:
    place = locate(f"{scheme}://u:secret@h:1/db?artifacts=/a&sslmode=require")
    assert place.sqlite_path is None
    assert place.artifacts == Path("/a")
    assert place.database.drivername == "postgresql+psycopg"
    assert dict(place.database.query) == {"sslmode": "require"}
    assert place.shown == f"{scheme}://h:1/db"


@pytest.mark.parametrize(
    "url", ["", "mysql://u:secret@h/db", "sqlite://", "sqlite:///:memory:", "http://:x:secret@"]
)
def test_anything_else_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        locate(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@lake/digits?token=secret", "s3://lake/digits"),
        ("https://secret@example.org/repo.git#secret", "https://example.org/repo.git"),
        ("postgresql://u:se/cret@h/db", "postgresql://h/db"),
        ("user:secret@host:repo", "host:repo"),
        ("git@example.org:team/repo.git", "git@example.org:team/repo.git"),
        ("/data/digits", "/data/digits"),
        ("s3://lake/digits@v2", "s3://lake/digits@v2"),
        ("http://host:8080/digits@v2", "http://host:8080/digits@v2"),
        ("s3://a:b@h/x,s3://c:secret@h/y", "s3://h/x,s3://h/y"),
    ],
)
def test_credentials_are_taken_out(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


def test_azure_names_a_container_and_the_environment_the_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from penstock.store.bucket import open_bucket

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    place = locate("sqlite:///x.db?artifacts=az://container/some/prefix").artifacts
    assert place == "az://container/some/prefix"
    opened = open_bucket(place)._store
    assert (opened.config["container_name"], opened.prefix) == ("container", "some/prefix")
    with pytest.raises(RefusedError, match="or az://CONTAINER/PREFIX$"):
        locate("sqlite:///x.db?artifacts=abfs://container/x")


def test_endpoint_is_what_each_provider_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.store.bucket import open_bucket

    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    for scheme, name in (("s3", "endpoint"), ("gs", "base_url"), ("az", "endpoint")):
        opened = open_bucket(f"{scheme}://bucket/x?endpoint=http://127.0.0.1:9&allow_http=true")
        assert opened._store.config[name] == "http://127.0.0.1:9"
