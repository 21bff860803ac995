"""A server whose host is gone without a word: what was sent is waited for so long, not ever."""

import os
import socket
from contextlib import suppress

import grpc
import pytest

from penstock_gateway.grpc_upstream import GrpcUpstream
from penstock_gateway.upstream import Call, UpstreamError

pytestmark = pytest.mark.any_transport


def user_timeouts_ms(port: int) -> list[int]:
    """TCP_USER_TIMEOUT of this process's connections to the port."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as each:
            if each.family != socket.AF_UNIX and each.getpeername()[1] == port:
                found.append(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    return found


async def test_kernel_gives_up_on_what_a_silent_server_does_not_take() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = GrpcUpstream(f"127.0.0.1:{port}")
    with pytest.raises(UpstreamError):
        await upstream.unary(Call("ServerReady"), b"")
    assert set(user_timeouts_ms(port)) == {20_000}
    await upstream.close()
    await server.stop(None)
