"""The native load client from Python: every request comes back once, and nothing holds the GIL."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from penstock import _core
from penstock.errors import Code, FailedPreconditionError, UnavailableError

PATH = "/test.Test/Call"
TIMEOUT_S = 60.0


class Service(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Echoes; b"refuse" is refused, b"wait" waits for `gate`, streams echo each message."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        if handler_call_details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests)

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            if request == b"refuse":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
            if request == b"wait":
                self._gate.wait(TIMEOUT_S)
            return request

        return grpc.unary_unary_rpc_method_handler(call)


@contextmanager
def serve() -> Iterator[tuple[int, threading.Event]]:
    gate = threading.Event()
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Service(gate),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, gate
    finally:
        gate.set()
        server.stop(None).wait()


def take(client: _core.LoadClient, count: int) -> dict[int, tuple[int, bytes]]:
    taken: dict[int, tuple[int, bytes]] = {}
    while len(taken) < count:
        for tag, outcome, payload, latency_ns in client.take(TIMEOUT_S):
            assert tag not in taken
            assert latency_ns > 0
            taken[tag] = (outcome, payload)
    return taken


@pytest.mark.parametrize("streams", [0, 3])
def test_every_request_completes_once_with_its_answer(streams: int) -> None:
    path = "/test.Test/Stream" if streams else PATH
    with serve() as (port, _):
        client = _core.LoadClient(
            host="127.0.0.1", port=port, path=path, connections=2, streams=streams
        )
        requests = [(number, b"x" * (number * 37)) for number in range(500)]
        client.submit(requests[:100])
        client.submit(requests[100:])
        assert take(client, 500) == {tag: (Code.OK, message) for tag, message in requests}
        assert client.in_flight() == 0
        client.close()


def test_failure_is_a_completion_with_its_code_and_text() -> None:
    with serve() as (port, _):
        client = _core.LoadClient(host="127.0.0.1", port=port, path=PATH)
        client.submit([(1, b"refuse"), (2, b"fine")])
        assert take(client, 2) == {
            1: (Code.RESOURCE_EXHAUSTED, b"full"),
            2: (Code.OK, b"fine"),
        }
        client.close()


def test_take_waits_without_the_gil() -> None:
    with serve() as (port, gate):
        client = _core.LoadClient(host="127.0.0.1", port=port, path=PATH)
        client.submit([(1, b"wait")])
        assert client.take(0.0) == []
        threading.Timer(0.01, gate.set).start()  # runs only while take has let go of the GIL
        assert take(client, 1) == {1: (Code.OK, b"wait")}
        client.close()


def test_close_completes_what_has_no_answer() -> None:
    with serve() as (port, _):
        client = _core.LoadClient(host="127.0.0.1", port=port, path=PATH)
        client.submit([(number, b"wait") for number in range(10)])
        client.close()
        client.close()
        no_answer = _core.LOAD_OUTCOMES.index("no answer")
        assert {outcome for outcome, _ in take(client, 10).values()} == {no_answer}
        assert client.take(TIMEOUT_S) == []
        with pytest.raises(FailedPreconditionError, match="closed"):
            client.submit([(1, b"x")])


def test_client_dropped_with_requests_under_way_goes() -> None:
    with serve() as (port, _):
        client = _core.LoadClient(host="127.0.0.1", port=port, path=PATH)
        client.submit([(number, b"wait") for number in range(10)])
        gone = weakref.ref(client)
        del client
        assert gone() is None


def test_server_that_is_not_there_is_unavailable() -> None:
    with serve() as (port, _):
        pass
    with pytest.raises(UnavailableError, match="took no connection"):
        _core.LoadClient(host="127.0.0.1", port=port, path=PATH)


def test_connection_lost_is_a_completion() -> None:
    with serve() as (port, _):
        client = _core.LoadClient(host="127.0.0.1", port=port, path=PATH)
    client.submit([(1, b"x")])
    lost = _core.LOAD_OUTCOMES.index("connection lost")
    assert take(client, 1)[1][0] == lost
    client.close()


def test_outcomes_begin_with_the_codes_of_grpc() -> None:
    assert [_core.LOAD_OUTCOMES[code] for code in Code] == [code.name for code in Code]
