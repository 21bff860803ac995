"""What the store calls a server: no two at a time have the same name, as far as it can be known."""

from pathlib import Path
from typing import Any

import pytest

from penstock.config import ServerConfig
from penstock.deployed import name_of


def name(**settings: Any) -> str:
    return name_of(ServerConfig(store="s", environment="prod", model_repository=(), **settings))


def test_servers_on_any_free_port_have_names_of_their_own() -> None:
    assert name(grpc_port=0) != name(grpc_port=0)


def test_restarted_server_has_its_name_again() -> None:
    assert name(grpc_port=8001) == name(grpc_port=8001) != name(grpc_port=8011)


def test_same_port_of_another_address_is_another_server() -> None:
    assert name(host="10.0.0.1") != name(host="10.0.0.2")


def test_sockets_are_told_apart_by_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = name(grpc_address="unix:s")
    assert here == name(grpc_address=f"unix:{tmp_path}/s")
    monkeypatch.chdir("/")
    assert name(grpc_address="unix:s") != here
