"""Workers of Python models as processes: what each is given, and that none outlives its server."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support.models.python_files import add_python_model, parameters
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
                    "settings": [name for name in os.environ
                                 if name.startswith(("PENSTOCK_", "NOTIFY_"))],
                    "modules": [name for name in ("grpc", "google.protobuf") if name in
                                __import__("sys").modules]}
            return {"said": np.array([[json.dumps(said)]])}
"""


def asked(server: Served, x: int = 0) -> bytes:
    once = penstock_client.RetryPolicy(max_attempts=1)
    with penstock_client.Client(server.grpc, retry=once) as client:
        result = client.infer("m", {"x": np.array([[x]], np.int32)})
    answer: bytes = result["said"].item()
    return answer


def said(server: Served, x: int = 0) -> dict[str, object]:
    answer: dict[str, object] = json.loads(asked(server, x))
    return answer


def lose_an_answer(server: Served) -> None:
    """Asks what is never answered."""
    with suppress(penstock_client.RpcError):
        said(server, 1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    add_python_model(tmp_path, "m", TELLS)
    monkeypatch.setenv("PENSTOCK_LOG_FORMAT", "text")  # a setting that is not the worker's
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))  # to whom only the server speaks
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


STARTS = """
    import ctypes
    import json
    import os
    import signal
    import subprocess
    import sys
    import numpy as np
    TAIL = ["/usr/bin/tail", "-f", "/dev/null"]
    # Leaves a process behind that nobody is the parent of, in a session of its own.
    DAEMON = "import os, subprocess, sys; os.setsid(); " \\
        "print(subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=2).pid)"
    class Model:
        inputs = {"x": ("INT32", (1,))}
        outputs = {"said": (bytes, (1,))}
        def load(self, context):
            away = subprocess.Popen(TAIL, start_new_session=True)
            orphan = subprocess.run([sys.executable, "-c", DAEMON, *TAIL],
                                    check=True, stdout=subprocess.PIPE)
            near = subprocess.Popen(TAIL)
            self.pids = [os.getpid(), away.pid, int(orphan.stdout), near.pid]
        def predict(self, batch):
            how = batch["x"][0, 0]
            if how == 1:
                os._exit(0)
            if how == 2:
                ctypes.string_at(0)
            if how == 3:
                os.kill(os.getppid(), signal.SIGTERM)
                signal.pause()
            return {"said": np.array([[json.dumps(self.pids)]])}
"""
LEAVING = [
    pytest.param(0, id="server_stops"),
    pytest.param(1, id="exits"),
    pytest.param(2, id="crashes"),
    pytest.param(3, id="is_ended"),
    pytest.param(None, id="server_is_killed"),
]


@pytest.mark.parametrize("how", LEAVING)
def test_process_that_left_the_workers_session_ends_with_it(
    tmp_path: Path, how: int | None
) -> None:
    add_python_model(tmp_path, "m", STARTS, config=parameters(max_restarts=0))
    end = pytest.raises(AssertionError) if how is None else nullcontext()
    with end, served(tmp_path) as running:
        pids = json.loads(asked(running))
        processes = [psutil.Process(pid) for pid in pids]
        if how is None:
            os.kill(running.pid, signal.SIGKILL)
        elif how:
            with pytest.raises(penstock_client.UnavailableError):
                asked(running, how)
        if how != 0:
            _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_S)
            assert alive == []
    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_S)
    assert alive == []


def test_orphans_of_a_model_are_reaped_while_it_serves(tmp_path: Path) -> None:
    add_python_model(tmp_path, "m", STARTS)
    with served(tmp_path) as running:
        worker, _, orphan, _ = json.loads(asked(running))
        keeper = psutil.Process(worker).parent()
        assert keeper is not None
        gone = psutil.Process(orphan)
        gone.kill()
        _, alive = psutil.wait_procs([gone], timeout=_PATIENCE_S)
        assert alive == []
        assert not [each for each in keeper.children() if each.status() == psutil.STATUS_ZOMBIE]


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


def interpreter_without_numpy(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def interpreter_that_refuses(folder: Path) -> Path:
    script = folder / "python"
    folder.mkdir()
    script.write_text(
        "#!/bin/sh\necho starting; echo '<3>libmissing.so: not found' >&2; exit 127\n"
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            interpreter_without_numpy,
            "exited with code 1 while it loaded the model: the model's interpreter cannot import "
            "numpy, which every worker needs: No module named 'numpy'",
        ),
        (
            interpreter_that_refuses,
            "exited with code 127 while it loaded the model: libmissing.so: not found",
        ),
    ],
)
def test_worker_that_does_not_start_says_why_in_the_index(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    repository = tmp_path / "models"
    add_python_model(repository, "m", TELLS)
    option = f"python,interpreter={make(tmp_path / 'environment')}"
    flags = ("--backend-config", option, "--exit-on-error", "false", "--strict-readiness", "false")
    with served(repository, *flags) as running:
        with penstock_client.Client(running.grpc) as client:
            (entry,) = client.repository_index()
    assert (entry.state, reason in entry.reason) == ("UNAVAILABLE", True), entry.reason
    assert str(tmp_path) not in entry.reason
