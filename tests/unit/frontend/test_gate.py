"""By what a caller's connection is told from others."""

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.frontend.gate import Gate


class Access:
    """The core's, which writes down whom it was asked about."""

    is_active = True

    def __init__(self) -> None:
        self.connections: list[str] = []

    def identify(self, metadata: Sequence[tuple[str, str | bytes]], connection: str) -> Any:
        self.connections.append(connection)

    def needs_verification(self, group: str, caller: Any) -> bool:
        return False

    def authorize(self, group: str, caller: Any = None) -> None:
        pass

    def admit(self, group: str, size_bytes: int, caller: Any = None) -> None:
        pass


class OfGrpc:
    """A context that knows no more than gRPC's: every client of a Unix socket is one peer."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "unix:"


class OfCore(OfGrpc):
    """A context of the native transport."""

    def connection(self) -> str:
        return "unix:#7"


@pytest.mark.parametrize(("context", "name"), [(OfGrpc(), "unix:"), (OfCore(), "unix:#7")])
async def test_connection_is_named_as_well_as_its_transport_can(context: OfGrpc, name: str) -> None:
    access = Access()
    await Gate(access).admit("metadata", 1, context)
    assert access.connections == [name]
