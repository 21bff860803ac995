"""The file of a Unix-domain socket: taken from the dead only, and removed by whoever made it."""

import socket
import threading
from pathlib import Path

import pytest

from penstock.errors import StartupError
from penstock.frontend import unix_address
from penstock.frontend.unix_address import UnixAddress


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "penstock.sock"


def listening(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(str(path))
    bound.listen()
    return bound


def claim(path: Path) -> UnixAddress:
    address = UnixAddress(path)
    with address.claimed("gRPC"):
        address.bind("gRPC").close()
    return address


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix:///run/a.sock", "/run/a.sock"),
        ("unix:a.sock", "a.sock"),
    ],
)
def test_address_names_a_file(text: str, path: str) -> None:
    address = UnixAddress.of(text)
    assert address is not None and address.path == Path(path)


@pytest.mark.parametrize("text", ["127.0.0.1", "localhost", "::1", ""])
def test_other_addresses_are_none(text: str) -> None:
    assert UnixAddress.of(text) is None


def test_file_is_made_and_removed(path: Path) -> None:
    address = claim(path)
    assert path.is_socket()
    address.remove()
    assert not path.exists()
    address.remove()


def test_file_of_a_dead_server_is_replaced(path: Path) -> None:
    listening(path).close()
    before = path.lstat().st_ino, path.lstat().st_mtime_ns
    claim(path)
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) != before


@pytest.mark.parametrize("backlog", [0, 8])
def test_live_server_is_left_alone(path: Path, backlog: int) -> None:
    with listening(path) as server:
        server.listen(backlog)
        with pytest.raises(StartupError, match="for gRPC: another server listens there"):
            claim(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_other_files_are_left_alone(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(StartupError, match="a file that is no socket is there"):
        claim(path)
    assert path.exists() or path.is_symlink()


def test_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file or directory"):
        claim(tmp_path / "none" / "a.sock")
    with pytest.raises(StartupError, match="too long"):
        claim(tmp_path / ("x" * 200))


def test_file_that_another_has_put_there_since_is_left(path: Path) -> None:
    address = claim(path)
    path.unlink()  # most file systems give its inode to the next
    with listening(path):
        address.remove()
        assert path.is_socket()


def test_file_whose_mode_was_changed_is_removed_while_it_is_listened_on(path: Path) -> None:
    address = UnixAddress(path)
    with address.claimed("gRPC"), address.bind("gRPC"):
        path.chmod(0o600)
        address.remove(is_listening=True)
    assert not path.exists()


def test_directory_that_somebody_keeps_locked_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, UnixAddress(path).claimed("gRPC"):
        patch.setattr(unix_address, "_LOCK_S", 0.01)
        with pytest.raises(StartupError) as raised:
            claim(path)
    reason = f"another process holds the lock of its directory {path.parent}"
    assert str(raised.value) == f"cannot listen on unix:{path} for gRPC: {reason}"


def test_server_that_looks_for_a_moment_is_waited_for(path: Path) -> None:
    other = UnixAddress(path.parent / "other.sock")
    claiming = threading.Thread(target=claim, args=(path,))
    with other.claimed("gRPC"):
        claiming.start()
    claiming.join()
    assert path.is_socket()
