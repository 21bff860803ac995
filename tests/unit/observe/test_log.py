"""Log lines: one event, one line, in both formats."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Literal

import pytest

from penstock.observe.log import LogSettings, apply_settings, set_up_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name in ("asyncio", "grpc", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_text_line_has_time_level_logger_and_message() -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", "text"), stream)
    logging.getLogger("penstock.x").warning("took %d ms", 5)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING penstock\.x: took 5 ms\n",
        stream.getvalue(),
    )


def test_message_cannot_forge_a_second_line() -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", "text"), stream)
    logging.getLogger("x").info("a\nb\tc\x1b")
    assert stream.getvalue().endswith("x: a b c \n")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_that_a_client_names_steers_a_terminal(
    log_format: Literal["text", "json"],
) -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", log_format), stream)
    about = {"model": "\x9b2J\u2028", "request_id": "\x7f\x85\u202e"}
    logging.getLogger("x").info("\x9b2J\x85\u2028\x7f", extra=about)
    line = stream.getvalue()
    assert len(line.splitlines()) == 1
    assert line.rstrip("\n").isprintable() and line.isascii()


def test_json_line_is_an_object_whatever_the_message() -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", "json"), stream)
    logging.getLogger("x").error('say "hi"\n\u00e4')
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "x", 'say "hi"\n\u00e4')
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_traceback_comes_with_the_event(form: str) -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", form), stream)  # type: ignore[arg-type]
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("x").exception("failed")
    assert "KeyError: 'lost'" in stream.getvalue()
    if form == "json":
        assert "Traceback" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize(
    ("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_lines_below_the_level_are_dropped(level: str, count: int) -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of(level, "text"), stream)  # type: ignore[arg-type]
    for severity in (10, 20, 30, 40):
        logging.getLogger("x").log(severity, "m")
    assert stream.getvalue().count("\n") == count


def test_libraries_are_quiet_unless_debugging() -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings.of("info", "text"), stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""
    set_up_logging(LogSettings.of("debug", "text"), stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert "Started" in stream.getvalue()


@pytest.mark.parametrize("count", range(16))
def test_each_level_is_on_or_off_by_itself(count: int) -> None:
    info, warning, error, debug = (bool(count >> bit & 1) for bit in range(4))
    stream = io.StringIO()
    set_up_logging(LogSettings(info, warning, error, int(debug)), stream)
    for severity in (10, 20, 30, 40):
        logging.getLogger("x").log(severity, "m")
    written = [line.split()[1] for line in stream.getvalue().splitlines()]
    levels = {"DEBUG": debug, "INFO": info, "WARNING": warning, "ERROR": error}
    assert written == [level for level, is_on in levels.items() if is_on]


def test_settings_change_while_the_log_is_written() -> None:
    stream = io.StringIO()
    set_up_logging(LogSettings(), stream)
    handlers = list(logging.getLogger().handlers)
    apply_settings(LogSettings(info=False, json=True))
    logging.getLogger("x").info("no")
    logging.getLogger("x").warning("yes")
    assert json.loads(stream.getvalue())["message"] == "yes"
    assert logging.getLogger().handlers == handlers
