"""Debian's Prometheus and promtool, as `make slow` unpacks them or as they are installed."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_UNPACKED = Path(__file__).parents[2] / "build" / "prometheus" / "usr" / "bin"
_LISTENS = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:[1-9]\d*)')


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is; a missing one fails the test, it does not skip it."""
    found = shutil.which(name, path=str(_UNPACKED)) or shutil.which(name)
    assert found, f"there is no {name}: make build/stamps/prometheus"
    return found


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """What promtool says; fails where it complains."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


class Prometheus:
    """A running one, asked through its HTTP interface."""

    def __init__(self, address: str) -> None:
        self._base = f"http://{address}/api/v1"

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._base}/{path}?{query}") as answer:
            return json.load(answer)["data"]

    def value(self, expression: str) -> float | None:
        """Of an expression with one sample; None while there is none."""
        result = self.get("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None


def _await_ready(log: IO[str]) -> str:
    """Reads the log until it answers; its address."""
    said = ""
    for line in log:
        said += line
        found = _LISTENS.search(said)  # as likely after it is ready as before
        if found and "Server is ready to receive web requests" in said:
            return found[1]
    raise AssertionError(said)


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Starts Prometheus on a free port, yields once it is ready, ends it."""
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}"]
    command.append("--web.listen-address=127.0.0.1:0")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield Prometheus(_await_ready(process.stderr))
        finally:
            process.terminate()
            process.communicate()
