"""The store's database: its schema, up and down, and what is told when it is not there."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect, text
from tests.support.stores import (
    PostgresqlServer,
    directory_of,
    postgresql,
    postgresql_server,
    push,
    store,
    store_url,
)

from penstock.store.database import Database
from penstock.store.failures import RefusedError, StoreUnavailableError
from penstock.store.location import locate
from penstock.store.migrate import HEAD, _scripts, migrate
from penstock.store.records import Reference
from penstock.store.schema import METADATA
from penstock.store.store import Store, open_store

pytestmark = pytest.mark.any_transport

__all__ = ["postgresql", "store", "store_url"]


def test_migrations_make_the_tables_of_the_schema(store: Store) -> None:
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_head_is_the_last_migration() -> None:
    assert _scripts().get_current_head() == HEAD


def test_migrations_go_down_to_nothing_and_up_again(store: Store) -> None:
    push(store)
    with store.database.write() as connection:
        migrate(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    with store.database.write() as connection:
        migrate(connection, HEAD)
    assert push(store).version == 1


def test_store_is_made_by_who_may_and_by_no_other(store_url: str) -> None:
    with pytest.raises(RefusedError, match="the first `penstock push` makes it"):
        with open_store(store_url):
            pass
    with open_store(store_url, may_create=True) as made:
        push(made)
    with open_store(store_url) as again:
        assert again.show(Reference("m")).version == 1


def test_store_of_a_newer_version_is_refused(store: Store, store_url: str) -> None:
    with store.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RefusedError, match="newer version"):
        with open_store(store_url):
            pass


def test_upgrade_is_of_a_store_only(store_url: str) -> None:
    unmade = Store(store_url, actor="tester")
    with pytest.raises(RefusedError, match="the first `penstock push` makes it"):
        unmade.upgrade()
    unmade.close()
    path = locate(store_url).sqlite_path
    assert path is None or not path.exists()
    with open_store(store_url, may_create=True) as made:
        made.upgrade()
        with made.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(RefusedError, match="newer version"):
            made.upgrade()


def test_database_of_something_else_is_refused(store_url: str) -> None:
    database = Database(locate(store_url))
    path = locate(store_url).sqlite_path
    if path is not None:
        path.parent.mkdir()
    with database.write() as connection:
        connection.execute(text("CREATE TABLE customers (id INTEGER)"))
    database.close()
    with pytest.raises(RefusedError, match="tables of something else"):
        with open_store(store_url, may_create=True):
            pass


def test_sqlite_keeps_a_write_ahead_log_and_flushes_it(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "s"), may_create=True) as opened:
        with opened.database.read() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_postgresql_remembers_where_the_artifacts_are(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    url = postgresql.url(postgresql.new_database())
    with pytest.raises(RefusedError, match=r"add \?artifacts=DIR"):
        with open_store(url, may_create=True):
            pass
    with open_store(f"{url}&artifacts={tmp_path}", may_create=True) as made:
        push(made)
    with open_store(url) as again:
        assert directory_of(again).root == tmp_path
    with pytest.raises(RefusedError, match="artifacts of the store"):
        with open_store(f"{url}&artifacts={tmp_path}/other"):
            pass


def test_database_that_is_gone_is_told_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://ada:secret@/db?host={tmp_path}&artifacts={tmp_path}"
    with pytest.raises(StoreUnavailableError, match="does not answer") as failure:
        with open_store(url):
            pass
    assert "secret" not in str(failure.value)


def test_store_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "store"), may_create=True) as opened:
        push(opened)

        def forbid(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA query_only=ON")

        event.listen(opened.database._engine, "connect", forbid)
        with pytest.raises(StoreUnavailableError, match="no permission to write the store at"):
            opened.alias("m", "best", 1)


def test_store_goes_on_when_the_database_is_back(tmp_path: Path) -> None:
    with postgresql_server() as server:
        url = f"{server.url(server.new_database())}&artifacts={tmp_path}"
        with open_store(url, may_create=True) as opened:
            push(opened)
            server.stop()
            with pytest.raises(StoreUnavailableError):
                opened.show(Reference("m"))
            server.start()
            assert opened.show(Reference("m")).version == 1
