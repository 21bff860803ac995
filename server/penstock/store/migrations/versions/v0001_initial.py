"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _id() -> "sa.Column[int]":
    return sa.Column("id", _ID, primary_key=True, autoincrement=True)


def _to(name: str, target: str) -> "sa.Column[int]":
    return sa.Column(name, _ID, sa.ForeignKey(target), nullable=False)


def _text(name: str, length: int | None = None) -> "sa.Column[str]":
    return sa.Column(name, sa.String(length) if length else sa.Text, nullable=False)


def _big(name: str, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _json(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.JSON, nullable=False)


def upgrade() -> None:
    """Makes them."""
    op.create_table("settings", _text("key", 64), _text("value"), sa.PrimaryKeyConstraint("key"))
    op.create_table(
        "models",
        _id(),
        _text("name", 255),
        _big("next_version"),
        _big("created_ms"),
        sa.UniqueConstraint("name"),
    )
    _create_versions()
    _create_details()
    _create_pointers()
    _create_deployments()
    _create_events()


def downgrade() -> None:
    """Removes them; what they held is lost."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER events_append_only ON events")
        op.execute("DROP FUNCTION penstock_refuse_change()")
    for table in (
        *("events", "reports", "deployments", "environments", "tags", "aliases", "goldens"),
        *("metrics", "lineage", "files", "versions", "models", "settings"),
    ):
        op.drop_table(table)


def _create_versions() -> None:
    op.create_table(
        "versions",
        _id(),
        _to("model_id", "models.id"),
        _big("number"),
        _text("digest", 80),
        _text("status", 32),
        _text("reason"),
        _big("size_bytes"),
        _text("backend", 64),
        _text("source_format", 32),
        *(_text(name, 255) for name in ("creator", "owner", "team")),
        _text("description"),
        _text("license", 255),
        *(_json(name) for name in ("signature", "runtime", "requirements")),
        _big("created_ms"),
        _big("updated_ms"),
        sa.UniqueConstraint("model_id", "number"),
    )
    op.create_index(None, "versions", ["digest"])


def _create_details() -> None:
    op.create_table(
        "files",
        _to("version_id", "versions.id"),
        _text("path", 1024),
        _big("size_bytes"),
        _text("sha256", 64),
        sa.PrimaryKeyConstraint("version_id", "path"),
    )
    op.create_index(None, "files", ["sha256"])
    op.create_table(
        "lineage",
        _id(),
        _to("version_id", "versions.id"),
        _text("kind", 32),
        sa.Column("position", sa.Integer, nullable=False),
        _text("name", 1024),
        _text("revision", 255),
        _text("uri"),
        _text("digest", 255),
        _json("details"),
    )
    for columns in (["version_id"], ["kind", "name"], ["digest"]):
        op.create_index(None, "lineage", columns)
    op.create_table(
        "metrics",
        _to("version_id", "versions.id"),
        *(_text(name, 255) for name in ("name", "dataset", "dataset_digest")),
        sa.Column("value", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("version_id", "name", "dataset"),
    )
    op.create_table(
        "goldens",
        _to("version_id", "versions.id"),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        _text("name", 255),
        _text("sha256", 64),
        sa.PrimaryKeyConstraint("version_id", "position"),
    )


def _create_pointers() -> None:
    op.create_table(
        "aliases",
        _to("model_id", "models.id"),
        _text("name", 255),
        _to("version_id", "versions.id"),
        _big("updated_ms"),
        sa.PrimaryKeyConstraint("model_id", "name"),
    )
    op.create_index(None, "aliases", ["version_id"])
    op.create_table(
        "tags",
        _to("version_id", "versions.id"),
        _text("key", 255),
        _text("value"),
        sa.PrimaryKeyConstraint("version_id", "key"),
    )


def _create_deployments() -> None:
    op.create_table(
        "environments",
        _id(),
        _text("name", 255),
        _big("generation"),
        _big("created_ms"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "deployments",
        _id(),
        _to("environment_id", "environments.id"),
        _to("model_id", "models.id"),
        _to("version_id", "versions.id"),
        _text("kind", 32),
        _text("alias", 255),
        sa.Column("allow_breaking", sa.Boolean, nullable=False),
        _text("status", 32),
        _text("reason"),
        _text("actor", 255),
        _big("requested_ms"),
        _big("settled_ms", nullable=True),
    )
    op.create_index(None, "deployments", ["environment_id", "model_id"])
    op.create_index(None, "deployments", ["version_id"])
    op.create_table(
        "reports",
        _to("deployment_id", "deployments.id"),
        _text("server", 255),
        _text("status", 32),
        _text("reason"),
        _text("digest", 80),
        _big("reported_ms"),
        sa.PrimaryKeyConstraint("deployment_id", "server"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        _id(),
        _big("at_ms"),
        _text("kind", 64),
        *(_text(name, 255) for name in ("actor", "model")),
        _big("version", nullable=True),
        _text("environment", 255),
        _json("details"),
    )
    op.create_index(None, "events", ["model", "version"])
    if op.get_bind().dialect.name == "sqlite":
        for action in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER events_no_{action.lower()} BEFORE {action} ON events BEGIN "
                "SELECT RAISE(ABORT, 'events are only ever added'); END"
            )
        op.execute(
            "CREATE TRIGGER events_no_replace BEFORE INSERT ON events "
            "WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id) BEGIN "
            "SELECT RAISE(ABORT, 'events are only ever added'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION penstock_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are only ever added'; END $$"
    )
    op.execute(
        "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION penstock_refuse_change()"
    )
