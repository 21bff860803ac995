"""What the gRPC transports do before anything reaches gRPC."""

from typing import Any

import pytest

from penstock_client import CancelledError, TensorError, Tls
from penstock_client._messages import METHODS, pb
from penstock_client._transport import (
    _CHANNEL_OPTIONS,
    Call,
    GrpcTransport,
    _Feed,
    _merge_options,
    _serialize,
)


class Huge:
    """A message over protobuf's limit; its zero pages are never touched, so they cost nothing."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        return bytes(2**31)


def test_request_over_the_limit_is_refused_before_it_is_sent() -> None:
    message: Any = Huge()
    with pytest.raises(TensorError, match="2147483648 bytes, over the 2147483647 allowed"):
        _serialize(message)


def test_retries_of_grpc_itself_are_off_and_messages_are_unlimited() -> None:
    options = dict(_CHANNEL_OPTIONS)
    assert options["grpc.enable_retries"] == 0
    assert options["grpc.max_send_message_length"] == 2**31 - 1
    assert options["grpc.max_receive_message_length"] == 2**31 - 1


def test_options_of_the_caller_replace_and_extend_the_defaults() -> None:
    merged = _merge_options([("grpc.enable_retries", 1), ("grpc.keepalive_time_ms", 5)])
    assert dict(merged) == {
        **dict(_CHANNEL_OPTIONS),
        "grpc.enable_retries": 1,
        "grpc.keepalive_time_ms": 5,
    }
    assert len(merged) == len(dict(merged))


def test_feed_ends_where_the_requests_fail_and_keeps_the_reason() -> None:
    def requests() -> Any:
        yield Message()
        raise KeyError("lost")

    class Message:
        def SerializeToString(self) -> bytes:  # noqa: N802
            return b"sent"

    feed = _Feed()
    assert list(feed.drain(requests())) == [b"sent"]
    with pytest.raises(KeyError, match="lost"):
        feed.raise_failure()


def test_feed_that_was_drained_whole_raises_nothing() -> None:
    feed = _Feed()
    assert list(feed.drain(iter(()))) == []
    feed.raise_failure()


def test_call_on_a_transport_that_another_thread_has_closed_is_cancelled() -> None:
    transport = GrpcTransport("localhost:1")
    transport.close()
    with pytest.raises(CancelledError, match="the client was closed before the call"):
        transport.unary(Call(METHODS["ServerLive"], 1.0), pb.ServerLiveRequest())
    with pytest.raises(CancelledError, match="the client was closed before the call"):
        next(transport.stream(Call(METHODS["ModelStreamInfer"], 1.0), iter(())))


def test_private_key_is_not_in_the_text_of_tls() -> None:
    assert "SECRET" not in repr(Tls(certificate=b"CERTIFICATE", key=b"SECRET"))
