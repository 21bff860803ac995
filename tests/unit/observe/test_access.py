"""The access log of what Python answers: lines, what is too much, and the end."""

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from penstock.observe.access import Access, AccessLog
from penstock.observe.log import LogSettings, apply_settings, set_up_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    written = io.StringIO()
    set_up_logging(LogSettings.of("info", "json"), written)
    yield written
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name in ("asyncio", "grpc", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_line_has_what_is_known_in_its_order(stream: io.StringIO) -> None:
    log = AccessLog()
    log.write(Access("/s/M", "OK", model="m", duration_ms=1.5, sent_bytes=3, peer="unix:"))
    log.close()
    entry = json.loads(stream.getvalue())
    assert list(entry) == [
        *("time", "level", "logger", "message", "method", "status", "model"),
        *("duration_ms", "received_bytes", "sent_bytes", "peer"),
    ]
    assert (entry["logger"], entry["duration_ms"]) == ("penstock.access", 1.5)


def test_texts_of_clients_are_cut(stream: io.StringIO) -> None:
    log = AccessLog()
    log.write(Access("/s/M", "OK", request_id="x" * 100_000))
    log.close()
    assert len(stream.getvalue()) < 1000


def test_what_is_too_much_is_dropped_counted_and_said(stream: io.StringIO) -> None:
    gate, reached = threading.Event(), threading.Event()

    class Slow(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            reached.set()
            return gate.wait(30)

    slow = Slow()
    logging.getLogger("penstock.access").addFilter(slow)
    try:
        log = AccessLog(capacity=2)
        log.write(Access("/s/first"))
        assert reached.wait(30)  # the writer has taken it, and is held up
        for _ in range(5):
            log.write(Access("/s/M"))
        assert log.dropped == 3
        gate.set()
        log.close()
    finally:
        logging.getLogger("penstock.access").removeFilter(slow)
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [each["level"] for each in entries].count("INFO") == 3
    (told,) = [each for each in entries if each["level"] == "WARNING"]
    assert told["dropped"] == 3 and "not in the access log" in told["message"]


def test_call_that_ends_while_info_is_off_has_no_line_later(stream: io.StringIO) -> None:
    log = AccessLog()
    apply_settings(LogSettings.of("warning", "json"))
    log.write(Access("/s/off"))
    apply_settings(LogSettings.of("info", "json"))
    log.write(Access("/s/on"))
    log.close()
    assert [json.loads(line)["method"] for line in stream.getvalue().splitlines()] == ["/s/on"]


def test_without_a_call_there_is_no_thread() -> None:
    before = threading.active_count()
    log = AccessLog()
    assert threading.active_count() == before
    log.close()
