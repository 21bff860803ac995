"""Workers of Python models as processes: what each is given, and that none outlives its server."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.models.python_files import add_python_model
from tests.support.server_process import Served, served

import penstock_client

pytestmark = pytest.mark.any_transport

_PATIENCE_S = 30

TELLS = """
    import json
    import os
    import subprocess
    import numpy as np
    class Model:
        inputs = {"x": ("INT32", (1,))}
        outputs = {"said": (bytes, (1,))}
        def load(self, context):
            self.child = subprocess.Popen(["/usr/bin/tail", "-f", "/dev/null"])
        def predict(self, batch):
            if batch["x"][0, 0] == 1:
                print("computing")
                while True:
                    sum(range(10**9))  # in C, with the interpreter's lock held
            fds = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                   if os.path.exists(f"/proc/self/fd/{fd}")}
            said = {"pid": os.getpid(), "child": self.child.pid, "fds": fds,
                    "settings": [name for name in os.environ if name.startswith("PENSTOCK_")],
                    "modules": [name for name in ("grpc", "google.protobuf") if name in
                                __import__("sys").modules]}
            return {"said": np.array([[json.dumps(said)]])}
"""


def said(server: Served, x: int = 0) -> dict[str, object]:
    with penstock_client.Client(server.grpc) as client:
        result = client.infer("m", {"x": np.array([[x]], np.int32)})
    answer: dict[str, object] = json.loads(result["said"].item())
    return answer


def lose_an_answer(server: Served) -> None:
    """Asks what is never answered."""
    with suppress(penstock_client.RpcError):
        said(server, 1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    add_python_model(tmp_path, "m", TELLS)
    monkeypatch.setenv("PENSTOCK_LOG_FORMAT", "text")  # a setting that is not the worker's
    with served(tmp_path) as running:
        yield running


def test_worker_has_its_own_descriptors_only(server: Served) -> None:
    answer = said(server)
    fds = answer["fds"]
    assert isinstance(fds, dict)
    kinds = {number: target.split(":")[0] for number, target in fds.items()}
    assert kinds["0"] == "/dev/null"
    assert [kinds[str(number)] for number in (1, 2, 3, 4)] == ["pipe", "pipe", "socket", "pipe"]
    others = {target for number, target in kinds.items() if int(number) > 4}
    assert {target.split(" ")[0] for target in others} == {"/memfd"}  # slabs
    assert answer["settings"] == []
    assert answer["modules"] == []


@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "computing_in_c"])
def test_killed_server_leaves_neither_worker_nor_its_children(
    tmp_path: Path, is_busy: bool
) -> None:
    add_python_model(tmp_path, "m", TELLS)
    with pytest.raises(AssertionError), served(tmp_path) as running:  # it does not end by SIGTERM
        answer = said(running)
        processes = [psutil.Process(int(str(answer[name]))) for name in ("pid", "child")]
        if is_busy:
            threading.Thread(target=lose_an_answer, args=(running,)).start()
            while not any("computing" in line for line in running.log):
                assert psutil.pid_exists(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_S)
        assert alive == [], "a worker outlived its server"


def test_interpreter_is_an_option(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", TELLS)
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nMARK=here exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    repository = tmp_path / "models"
    repository.mkdir()
    (tmp_path / "m").rename(repository / "m")
    with served(repository, "--backend-config", f"python,interpreter={wrapper}") as running:
        pid = said(running)["pid"]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"MARK=here" in environment.split(b"\0")


def test_check_names_a_model_that_does_not_load(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", "import numby")
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "check", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "No module named 'numby'" in done.stderr
