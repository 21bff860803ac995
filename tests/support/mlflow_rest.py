"""A tracking server that answers what a test wants, in the shapes of MLflow 3.17's REST API."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class FakeServer:
    """What is answered, and what was asked.

    Attributes:
        answers: by method (runs/get), or by method and a part of the query (runs/get?run_id=r1);
            an integer is a status of HTTP.
        listings: files by directory, as MLflow lists them.
        files: contents by path.
        moved_to: where every request is redirected.
        authorizations: the headers that came.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    listings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    moved_to: str = ""
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""

    def model(self, place: str, files: dict[str, bytes]) -> None:
        """Puts a model's files there."""
        self.listings[place] = [
            {"path": name, "is_dir": False, "file_size": len(content)}
            for name, content in files.items()
        ]
        self.files |= {f"{place}/{name}": content for name, content in files.items()}

    def answer(self, target: str) -> tuple[int, bytes]:
        """Status and content."""
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path.startswith(API):
            method = parts.path.removeprefix(API)
            keys = [*(f"{method}?{key}={value}" for key, value in query.items()), method]
            found = next((self.answers[key] for key in keys if key in self.answers), 404)
            if isinstance(found, int):
                return found, b'{"error_code": "REFUSED", "message": "as the test wants"}'
            return 200, found if isinstance(found, bytes) else json.dumps(found).encode()
        if parts.path == ARTIFACTS:
            files = self.listings.get(query["path"])
            return 200, json.dumps({"files": files} if files is not None else {}).encode()
        content = self.files.get(unquote(parts.path.removeprefix(f"{ARTIFACTS}/")))
        return (404, b"") if content is None else (200, content)


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    """On loopback, until the end of the block."""
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.authorizations.append(self.headers["Authorization"])
            status, content = (302, b"") if fake.moved_to else fake.answer(self.path)
            self.send_response(status)
            if fake.moved_to:
                self.send_header("Location", fake.moved_to)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
