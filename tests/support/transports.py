"""The transports that gRPC is served by, for tests that must pass on each."""

from typing import get_args, get_type_hints

from penstock.config import ServerConfig

TRANSPORTS = tuple(
    name for name in get_args(get_type_hints(ServerConfig)["transport"]) if name != "auto"
)
