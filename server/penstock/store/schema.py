"""The tables of the store's database.

Times are milliseconds since 1970, UTC. What is said of a version at its push never changes; what
changes is its status, aliases, tags and deployments, and every change leaves a row in `events`,
which refuses updates and deletes (triggers in the migrations). A version that is removed keeps its
rows: what a server answered with it must still be explained.

Approvals and signatures will be tables of their own that refer to `versions.digest`; kinds and
states are plain text so that new ones need no migration.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["METADATA"]

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up in INTEGER only


def _id() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


def _to(name: str, target: str, primary_key: bool = False) -> Column[int]:
    return Column(name, _ID, ForeignKey(target), nullable=False, primary_key=primary_key)


settings = Table(
    "settings",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

models = Table(
    "models",
    METADATA,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("next_version", BigInteger, nullable=False),  # numbers are never used twice
    Column("created_ms", BigInteger, nullable=False),
)

versions = Table(
    "versions",
    METADATA,
    _id(),
    _to("model_id", "models.id"),
    Column("number", BigInteger, nullable=False),
    Column("digest", String(80), nullable=False, index=True),
    Column("status", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("backend", String(64), nullable=False),
    Column("source_format", String(32), nullable=False),
    Column("creator", String(255), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("team", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("license", String(255), nullable=False),
    Column("signature", JSON, nullable=False),
    Column("runtime", JSON, nullable=False),
    Column("requirements", JSON, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    UniqueConstraint("model_id", "number"),
)

files = Table(
    "files",
    METADATA,
    _to("version_id", "versions.id", primary_key=True),
    Column("path", String(1024), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
)

lineage = Table(
    "lineage",
    METADATA,
    _id(),
    _to("version_id", "versions.id"),
    Column("kind", String(32), nullable=False),  # data, feature, code, run, parent
    Column("position", Integer, nullable=False),  # features have an order
    Column("name", String(1024), nullable=False),
    Column("revision", String(255), nullable=False),  # version, commit
    Column("uri", Text, nullable=False),
    Column("digest", String(255), nullable=False),
    Column("details", JSON, nullable=False),
    Index(None, "version_id"),
    Index(None, "kind", "name"),
    Index(None, "digest"),
)

metrics = Table(
    "metrics",
    METADATA,
    _to("version_id", "versions.id", primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("dataset", String(255), primary_key=True),
    Column("dataset_digest", String(255), nullable=False),
    Column("value", Float, nullable=False),
)

goldens = Table(
    "goldens",
    METADATA,
    _to("version_id", "versions.id", primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
)

aliases = Table(
    "aliases",
    METADATA,
    _to("model_id", "models.id", primary_key=True),
    Column("name", String(255), primary_key=True),
    _to("version_id", "versions.id"),
    Column("updated_ms", BigInteger, nullable=False),
    Index(None, "version_id"),
)

tags = Table(
    "tags",
    METADATA,
    _to("version_id", "versions.id", primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text, nullable=False),
)

environments = Table(
    "environments",
    METADATA,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("generation", BigInteger, nullable=False),  # goes up with every deployment
    Column("created_ms", BigInteger, nullable=False),
)

deployments = Table(
    "deployments",
    METADATA,
    _id(),
    _to("environment_id", "environments.id"),
    _to("model_id", "models.id"),
    _to("version_id", "versions.id"),
    Column("kind", String(32), nullable=False),  # deploy, alias, rollback
    Column("alias", String(255), nullable=False),  # that it follows; "" = none
    Column("allow_breaking", Boolean, nullable=False),
    Column("status", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("requested_ms", BigInteger, nullable=False),
    Column("settled_ms", BigInteger, nullable=True),
    Index(None, "environment_id", "model_id"),
    Index(None, "version_id"),
)

reports = Table(
    "reports",
    METADATA,
    _to("deployment_id", "deployments.id", primary_key=True),
    Column("server", String(255), primary_key=True),
    Column("status", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("digest", String(80), nullable=False),  # of the bytes that the server loaded
    Column("reported_ms", BigInteger, nullable=False),
)

events = Table(
    "events",
    METADATA,
    _id(),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("model", String(255), nullable=False),
    Column("version", BigInteger, nullable=True),
    Column("environment", String(255), nullable=False),
    Column("details", JSON, nullable=False),
    Index(None, "model", "version"),
)
