"""Where a store is: what `--store` and PENSTOCK_STORE say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from penstock.store.failures import RefusedError

__all__ = [
    "ARTIFACTS",
    "OBJECT_OPTIONS",
    "Location",
    "has_credentials",
    "is_bucket",
    "locate",
    "scrubbed",
    "without_credentials",
]

DATABASE = "store.db"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
# A password may hold a slash that should have been escaped; what is all digits is a port.
_USERINFO = re.compile(r"(?<=://)(?:[^/\s]*@|[^/\s@:]*:(?!\d+(?:/|$))[^\s@]*@)")
_SECRET = re.compile(
    r"([?&;#][^=&;\s]*(?:token|secret|passw|pwd|key|sig|auth|cred)[^=&;\s]*=)[^&;\s\"'#]*", re.I
)
ARTIFACTS = "artifacts"
OBJECT_OPTIONS = ("endpoint", "region")
_BUCKETS = ("s3", "gs", "az")
_ALLOW_HTTP = "allow_http"


@dataclass(frozen=True, slots=True)
class Location:
    """A store.

    Attributes:
        database: for SQLAlchemy.
        artifacts: the directory of the bytes, or the URL of a bucket; None: the database says it.
        shown: for people, without anything secret.
    """

    database: URL
    artifacts: Path | str | None
    shown: str

    @property
    def sqlite_path(self) -> Path | None:
        """The file of an SQLite database."""
        is_file = self.database.get_backend_name() == "sqlite"
        return Path(self.database.database or "") if is_file else None


def locate(url: str) -> Location:
    """Reads a directory, sqlite:///FILE or postgresql://...; `?artifacts=` names the bytes' place.

    Raises:
        RefusedError: it is none of these.
    """
    if not url:
        raise RefusedError("no store is named: give --store or set PENSTOCK_STORE")
    if "://" not in url:
        root = Path(url)
        database = URL.create("sqlite", database=str(root / DATABASE))
        return Location(database, root / ARTIFACTS, url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise RefusedError(f"'{without_credentials(url)}' is no URL of a database") from None
    named = parsed.query.get("artifacts", "")
    artifacts = _place(named) if isinstance(named, str) and named else None
    parsed = parsed.difference_update_query(["artifacts"])
    kind = parsed.get_backend_name()
    shown = without_credentials(url)
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise RefusedError(f"'{shown}' names no file: expected sqlite:///FILE")
        return Location(parsed, artifacts or Path(parsed.database).parent / ARTIFACTS, shown)
    if kind == "postgresql":
        return Location(parsed.set(drivername="postgresql+psycopg"), artifacts, shown)
    raise RefusedError(f"'{shown}': expected a directory, sqlite:///FILE or postgresql://...")


def is_bucket(place: Path | str) -> bool:
    """Whether artifacts are in an object store; else they are in a directory."""
    return isinstance(place, str) and "://" in place


def _place(named: str) -> Path | str:
    if "://" not in named:
        return Path(named)
    try:
        parts = urlsplit(named)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise RefusedError(f"artifacts: '{without_credentials(named)}' is no URL") from None
    shown = without_credentials(named)
    if parts.scheme not in _BUCKETS or not parts.netloc:
        raise RefusedError(
            f"artifacts: '{shown}': expected a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX "
            "or az://CONTAINER/PREFIX"
        )
    unknown = [key for key, _ in options if key not in (*OBJECT_OPTIONS, _ALLOW_HTTP)]
    has_secrets = any(has_credentials(value) for _, value in options)
    if "@" in parts.netloc or parts.fragment or unknown or has_secrets:
        known = ", ".join((*OBJECT_OPTIONS, _ALLOW_HTTP))
        raise RefusedError(
            f"artifacts: '{shown}' may only have the options {known}: credentials belong in the "
            "environment, since the database keeps the URL"
        )
    return named


def scrubbed(text: str) -> str:
    """A text without users, passwords and secret parameters of the URIs in it."""
    return _URI.sub(lambda found: _SECRET.sub(r"\1***", _USERINFO.sub("", found[0])), text)


def has_credentials(text: str) -> bool:
    """Whether a URI in a text has a user, a password or a secret parameter."""
    return scrubbed(text) != text


def without_credentials(uri: str) -> str:
    """A URI without user, password, query and fragment, which may be or hold secrets.

    What has no scheme is left as it is, but for the form user:password@host.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        # scp's form of a git remote: the user is no secret there, a password would be
        return re.sub(r"^[^/@\s]*:[^/@\s]*@", "", uri)
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = bare.partition("/")
    # A password may hold a slash that should have been escaped.
    has_port = re.fullmatch(r"[^:]*:\d*", authority) is not None
    if "@" in path and ":" in authority and "@" not in authority and not has_port:
        authority, slash, path = bare.rpartition("@")[2].partition("/")
    return scrubbed(f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}")
