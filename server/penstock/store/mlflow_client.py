"""TrackingServer: what `mlflow server` answers over HTTP: JSON, and artifacts that it passes on.

The server is not trusted: answers are bounded, names of files lead nowhere else, redirects are not
followed (they would be given the credentials). Those are the environment's, by MLflow's names.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from penstock.store.copying import write_all
from penstock.store.failures import RefusedError, StoreUnavailableError
from penstock.store.files import os_failure
from penstock.store.location import has_credentials, without_credentials
from penstock.store.manifest import MAX_FILES, path_fault
from penstock.store.mlflow import plain_text

__all__ = ["TrackingServer", "rows"]

_TIMEOUT_S = 60.0
_MAX_JSON_BYTES = 16 << 20
_MAX_PAGES = 10_000
_CHUNK_BYTES = 1 << 20
_API = "api/2.0/mlflow"
_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Has none followed: the answer is the failure."""


class TrackingServer:
    """Asks a server.

    Threading: not thread-safe. Blocking: every method, for a minute where nobody answers.

    Every method raises RefusedError where the server answers something else than what was asked
    for, and StoreUnavailableError where it does not answer.
    """

    def __init__(self, url: str, environment: Mapping[str, str] | None = None) -> None:
        """Asks for nothing yet.

        Args:
            url: http://HOST:PORT, maybe with a path.
            environment: with the credentials; None = this process's.

        Raises:
            RefusedError: it is no such URL, or has credentials.
        """
        parts = urlsplit(url)
        self.shown = without_credentials(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RefusedError(f"'{self.shown}': expected http://HOST:PORT of a tracking server")
        if parts.username or parts.password or parts.query or has_credentials(url):
            raise RefusedError(
                f"'{self.shown}': credentials belong in the environment: MLFLOW_TRACKING_TOKEN, or "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        self.address = parts.netloc
        self._base = url.rstrip("/")
        self._headers = _authorization(os.environ if environment is None else environment)
        self._opener = build_opener(_NoRedirects)

    def get(self, method: str, **parameters: str) -> Mapping[str, Any]:
        """What a method of the REST API gives, such as runs/get."""
        return self._json(f"{_API}/{method}", parameters)

    def pages(self, method: str, key: str, **parameters: str) -> Iterator[Mapping[str, Any]]:
        """Everything that a search finds, page by page."""
        for _ in range(_MAX_PAGES):
            found = self.get(method, **parameters)
            yield from rows(found, key)
            token = plain_text(found.get("next_page_token"))
            if not token:
                return
            parameters["page_token"] = token
        raise RefusedError(f"'{self.shown}' has more than {_MAX_PAGES} pages of {key}")

    def files(self, directory: str) -> dict[str, int]:
        """Files below a directory of artifacts: sizes in bytes by their paths relative to it.

        Raises:
            RefusedError: one has a path that leads elsewhere, or there are too many.
        """
        found: dict[str, int] = {}
        waiting, looked = [""], 0
        while waiting:
            below = waiting.pop()
            looked += 1
            answer = self._json(_ARTIFACTS, {"path": f"{directory}/{below}".rstrip("/")})
            for each in rows(answer, "files"):
                path = below + _name(each.get("path"))
                fault = path_fault(path)
                if fault:
                    raise RefusedError(f"'{self.shown}' has a file that is refused: {fault}")
                if each.get("is_dir") is True:
                    waiting.append(f"{path}/")
                else:
                    size = each.get("file_size")
                    found[path] = size if isinstance(size, int) and size >= 0 else 0
            if len(found) + len(waiting) + looked > MAX_FILES:
                raise RefusedError(f"'{self.shown}' lists more than {MAX_FILES} files of a model")
        return found

    def download(self, path: str, size_bytes: int, target: Path) -> None:
        """Brings an artifact to a file that is not there yet.

        Raises:
            RefusedError: it has not as many bytes as were listed.
            StoreUnavailableError: there is no room for it here.
        """
        if size_bytes > shutil.disk_usage(target.parent).free:
            raise StoreUnavailableError(f"no room for the {size_bytes} bytes of '{target.name}'")
        left = size_bytes
        with self._open(f"{_ARTIFACTS}/{quote(path)}") as answer:
            try:
                with open(target, "xb", buffering=0) as file:
                    while piece := answer.read(min(_CHUNK_BYTES, left + 1)):
                        left -= len(piece)
                        if left < 0:
                            break
                        write_all(file, memoryview(piece))
            except http.client.HTTPException:
                left = max(left, 1)
            except OSError as error:
                raise os_failure(f"cannot fetch '{target.name}'", error) from error
        if left:
            what = "more" if left < 0 else "fewer"
            raise RefusedError(f"'{target.name}' has {what} bytes than the {size_bytes} listed")

    def _json(self, path: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        with self._open(f"{path}?{urlencode(parameters)}") as answer:
            try:
                content = answer.read(_MAX_JSON_BYTES + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._silent(error) from None
        try:
            found = json.loads(content) if len(content) <= _MAX_JSON_BYTES else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise RefusedError(f"'{self.shown}' is no tracking server of MLflow's: no JSON object")
        return found

    @contextmanager
    def _open(self, path: str) -> Iterator[IO[bytes]]:
        try:
            request = Request(f"{self._base}/{path}", headers=self._headers)
            answer = self._opener.open(request, timeout=_TIMEOUT_S)
        except HTTPError as error:
            is_passing = error.code >= 500 or error.code in (408, 429)
            with error:
                text = self._refusal(error)
            if is_passing:  # what it was asked for may well be there
                raise StoreUnavailableError(text) from None
            raise RefusedError(text) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._silent(error) from None
        with answer:
            yield answer

    def _silent(self, error: Exception) -> StoreUnavailableError:
        reason = plain_text(str(getattr(error, "reason", error)))[:200]
        return StoreUnavailableError(
            f"the tracking server '{self.shown}' does not answer: {reason}"
        )

    def _refusal(self, error: HTTPError) -> str:
        if error.code in (401, 403):
            names = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and .._PASSWORD"
            return f"'{self.shown}' refuses (HTTP {error.code}): set {names}"
        if 300 <= error.code < 400:
            to = without_credentials(error.headers.get("Location", ""))
            return (
                f"'{self.shown}' redirects to '{plain_text(to)}': give the URL of the server itself"
            )
        try:
            said = json.loads(error.read(1 << 16)).get("message")
        except (ValueError, OSError, AttributeError, RecursionError, http.client.HTTPException):
            said = ""
        reason = " ".join(plain_text(said).split())[:200]
        return f"'{self.shown}' answers HTTP {error.code}{': ' if reason else ''}{reason}"


def rows(found: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects of a list in an answer."""
    listed = found.get(key)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _name(listed: Any) -> str:
    """Of a file in a directory: one part of a path; what has more is refused by its dots."""
    return listed if isinstance(listed, str) and "/" not in listed else ".."


def _authorization(environment: Mapping[str, str]) -> dict[str, str]:
    token = environment.get("MLFLOW_TRACKING_TOKEN", "")
    user = environment.get("MLFLOW_TRACKING_USERNAME", "")
    if user:
        pair = f"{user}:{environment.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {"Authorization": f"Bearer {token}"} if token else {}
