"""What of gRPC's own log is kept."""

import logging

import grpc
import pytest

from penstock.frontend.grpcio import is_news


def record_of(error: Exception | None) -> logging.LogRecord:
    trace = (type(error), error, None) if error else None
    return logging.LogRecord("grpc", logging.ERROR, "x.pyx", 1, "RPC failed", (), trace)


def test_reply_that_met_a_closed_stream_is_debug_talk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = grpc.aio.InternalError('Failed "execute_batch": (<operation>,)')
    assert not is_news(record_of(error))
    assert [(each.levelname, each.exc_info) for each in caplog.records] == [("DEBUG", None)]


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError('Failed "execute_batch"'),
        grpc.aio.InternalError("Failed grpc_call_start_batch: 8"),
    ],
)
def test_anything_else_is_news(error: Exception | None) -> None:
    assert is_news(record_of(error))
