"""Log lines: one event, one line, in both formats."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from penstock.observe.log import set_up_logging


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
    set_up_logging("info", "text", stream)
    logging.getLogger("penstock.x").warning("took %d ms", 5)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING penstock\.x: took 5 ms\n",
        stream.getvalue(),
    )


def test_message_cannot_forge_a_second_line() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logging.getLogger("x").info("a\nb\tc\x1b")
    assert stream.getvalue().endswith("x: a b c \n")
    assert stream.getvalue().count("\n") == 1


def test_json_line_is_an_object_whatever_the_message() -> None:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    logging.getLogger("x").error('say "hi"\n\u00e4')
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "x", 'say "hi"\n\u00e4')
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_traceback_comes_with_the_event(form: str) -> None:
    stream = io.StringIO()
    set_up_logging("info", form, stream)  # type: ignore[arg-type]
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("x").exception("failed")
    assert "KeyError: 'lost'" in stream.getvalue()
    if form == "json":
        assert "Traceback" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize(
    ("level", "number", "count"), [("debug", 10, 4), ("info", 20, 3), ("warning", 30, 2)]
)
def test_lines_below_the_level_are_dropped(level: str, number: int, count: int) -> None:
    stream = io.StringIO()
    assert set_up_logging(level, "text", stream) == number  # type: ignore[arg-type]
    for severity in (10, 20, 30, 40):
        logging.getLogger("x").log(severity, "m")
    assert stream.getvalue().count("\n") == count


def test_libraries_are_quiet_unless_debugging() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""
    set_up_logging("debug", "text", stream)
    logging.getLogger("uvicorn.error").info("Started server process")
    assert "Started" in stream.getvalue()
