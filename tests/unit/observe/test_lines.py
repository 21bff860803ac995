"""Lines to a pipe that is full, shared or closed: whole, or not there."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from select import PIPE_BUF

import pytest

from penstock.observe.access import Access, AccessLog
from penstock.observe.lines import LineWriter
from penstock.observe.log import LogSettings, set_up_logging

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Neither end blocks."""
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for end in ends:
        with suppress(OSError):
            os.close(end)


def read(descriptor: int) -> bytes:
    found = b""
    with suppress(BlockingIOError):
        while piece := os.read(descriptor, 1 << 16):
            found += piece
    return found


def test_full_pipe_has_whole_lines_and_the_writer_is_told(pipe: Pipe) -> None:
    reader, writer = pipe
    lines = LineWriter(writer)
    assert lines.write(b"one\n")
    assert not lines.write((b"x" * 100 + b"\n") * 2000)
    found = read(reader)
    assert set(found.splitlines(keepends=True)) == {b"one\n", b"x" * 100 + b"\n"}
    assert found.count(b"\n") < 2000
    assert lines.write(b"after\n")
    assert read(reader) == b"after\n"


def test_lines_go_out_in_pieces_that_a_pipe_takes_whole(pipe: Pipe) -> None:
    reader, writer = pipe
    most, longer = b"a" * (PIPE_BUF - 1) + b"\n", b"b" * PIPE_BUF + b"\n"
    assert LineWriter(writer).write(most + b"c\n" + longer + b"d\n")
    assert os.read(reader, PIPE_BUF) == most
    assert read(reader) == b"c\n" + longer + b"d\n"


def test_long_line_that_was_cut_short_is_ended_before_the_next(pipe: Pipe) -> None:
    reader, writer = pipe
    lines = LineWriter(writer)
    assert not lines.write(b"a" * 200_000 + b"\n")
    assert not lines.write(b"lost too\n")
    assert b"\n" not in read(reader)
    assert lines.write(b"b\n") and lines.write(b"c\n")
    assert read(reader) == b"\nb\nc\n"


@pytest.fixture
def logging_to(pipe: Pipe) -> Iterator[Pipe]:
    """The log goes to the pipe."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with os.fdopen(os.dup(pipe[1]), "w") as stream:
        set_up_logging(LogSettings.of("info", "text"), stream)
        yield pipe
        root.setLevel(before[0])
        root.handlers[:] = before[1]
    for name in ("asyncio", "grpc", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_log_to_a_full_pipe_tears_no_line(
    logging_to: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(200):
        logging.getLogger("x").info("y" * 1000)
    found = read(logging_to[0])
    assert 0 < found.count(b"\n") < 200
    assert {len(line) for line in found.splitlines()} == {len(found.splitlines()[0])}
    assert capsys.readouterr().err == "", "Python's own complaint about the handler"


def test_access_log_counts_the_lines_that_a_full_pipe_did_not_take(logging_to: Pipe) -> None:
    log = AccessLog()
    for _ in range(2000):
        log.write(Access("/s/M", "OK"))
    log.close()
    found = read(logging_to[0])
    assert 0 < log.dropped < 2000
    assert found.count(b" call method=") + log.dropped == 2000
    log.write(Access("/s/next", "OK"))
    log.close()
    found = read(logging_to[0])
    assert b"method=/s/next" in found
    assert f"WARNING penstock.access: {log.dropped} calls are not in".encode() in found


def test_access_log_survives_what_its_handlers_raise(logging_to: Pipe) -> None:
    class NoMemory(logging.Filter):
        left = 2

        def filter(self, record: logging.LogRecord) -> bool:
            self.left -= 1
            if self.left >= 0:
                raise MemoryError
            return True

    fault = NoMemory()
    logging.getLogger("penstock.access").addFilter(fault)
    try:
        log = AccessLog(capacity=3)
        for number in range(3):
            log.write(Access(f"/s/{number}", "OK"))
        log.close()
    finally:
        logging.getLogger("penstock.access").removeFilter(fault)
    assert log.dropped == 2
    assert b"method=/s/2" in read(logging_to[0])
