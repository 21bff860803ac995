"""Sockets that the process was started with: whom they are for, and what is refused."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.config import ServerConfig
from penstock.errors import StartupError
from penstock.frontend.listeners import Inherited


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def taken(given: socket.socket, names: str, **variables: str) -> Inherited:
    """What comes of the environment; the descriptor is a copy that goes over to it."""
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
    return Inherited.take({**environ, **variables}, first_fd=os.dup(given.fileno()))


def config(**settings: object) -> ServerConfig:
    return ServerConfig(model_repository=(Path("m"),), **settings)  # type: ignore[arg-type]


def test_socket_is_taken_by_its_name_once(listener: socket.socket) -> None:
    inherited = taken(listener, "grpc")
    assert inherited.has("grpc") and not inherited.has("http")
    (found,) = inherited.of("grpc")
    with found:
        assert found.getsockname() == listener.getsockname()
        assert not found.get_inheritable() and not found.getblocking()
    assert inherited.of("grpc") == []


def test_address_of_the_socket_is_that_of_the_settings(listener: socket.socket) -> None:
    inherited = taken(listener, "http")
    applied = inherited.applied_to(config(host="0.0.0.0"))
    assert (applied.http_address, applied.http_port) == listener.getsockname()
    assert applied.grpc_address == ""
    for each in inherited.of("http"):
        each.close()


def test_unix_domain_socket_is_grpcs_address(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        inherited = taken(given, "grpc")
        assert inherited.applied_to(config()).grpc_address == f"unix:{path}"
        for each in inherited.of("grpc"):
            each.close()


def test_sockets_for_another_process_are_left_alone(listener: socket.socket) -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "grpc"}
    assert not Inherited.take(environ, first_fd=listener.fileno()).has("grpc")
    assert environ == {}, "no child is to think that they are its own"


@pytest.mark.parametrize(
    ("count", "names", "fault"),
    [
        ("one", "grpc", "LISTEN_FDS: expected a number up to 64, got 'one'"),
        ("1", "", "LISTEN_FDNAMES: expected 1 names"),
        ("1", "web", "expected one of grpc, http, metrics, got 'web'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    listener: socket.socket, count: str, names: str, fault: str
) -> None:
    with pytest.raises(StartupError, match=fault):
        taken(listener, names, LISTEN_FDS=count)


def test_socket_that_does_not_listen_is_refused() -> None:
    with (
        socket.socket() as given,
        pytest.raises(StartupError, match=r"\(http\) is no TCP socket that listens"),
    ):
        taken(given, "http")


def test_descriptor_that_is_no_socket_is_refused() -> None:
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "grpc"}
    with (
        open(os.devnull) as given,
        pytest.raises(StartupError, match=r"\(grpc\) is no socket"),
    ):
        Inherited.take(environ, first_fd=given.fileno())


def test_socket_for_a_side_that_is_off_is_refused(listener: socket.socket) -> None:
    inherited = taken(listener, "http")
    with pytest.raises(StartupError, match="a socket for http, and --allow-http is false"):
        inherited.applied_to(config(allow_http=False))
    for each in inherited.of("http"):
        each.close()
