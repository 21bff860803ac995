"""Changes of the log settings: what is taken, what is refused, and that it is all or nothing."""

import pytest

from penstock.errors import CoreError, InvalidArgumentError, UnimplementedError
from penstock.observe.log import LogSettings
from penstock.observe.log_control import LogControl, LogValue

DEFAULTS: dict[str, LogValue] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


def control_of(settings: LogSettings | None = None) -> tuple[LogControl, list[LogSettings]]:
    applied: list[LogSettings] = []
    return LogControl(settings or LogSettings(), applied.append), applied


def test_settings_are_those_of_the_start() -> None:
    control, applied = control_of()
    assert control.values() == DEFAULTS
    assert applied == []
    control, _ = control_of(LogSettings.of("error", "json"))
    assert control.values() == {**DEFAULTS, "log_info": False, "log_warning": False}
    control, _ = control_of(LogSettings.of("debug", "text"))
    assert control.values() == {**DEFAULTS, "log_verbose_level": 1}


def test_given_settings_change_and_the_others_stay() -> None:
    control, applied = control_of()
    control.change({"log_info": False, "log_verbose_level": 3})
    control.change({"log_error": False})
    assert control.values() == {
        **DEFAULTS,
        "log_info": False,
        "log_error": False,
        "log_verbose_level": 3,
    }
    assert applied == [
        LogSettings(info=False, verbose_level=3),
        LogSettings(info=False, error=False, verbose_level=3),
    ]


@pytest.mark.parametrize("started_json", [True, False])
def test_format_is_that_of_the_start_or_text(started_json: bool) -> None:
    control, applied = control_of(LogSettings(json=started_json))
    control.change({"log_format": "ISO8601"})
    assert control.values()["log_format"] == "ISO8601"
    assert not applied[-1].json
    control.change({"log_format": "default"})
    assert applied[-1].json is started_json


def test_what_is_read_can_be_written_back() -> None:
    control, applied = control_of()
    control.change(control.values())
    assert applied == [LogSettings()]


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("log_info", 1, InvalidArgumentError, "expect boolean for 'log_info', got uint32"),
        ("log_warning", "no", InvalidArgumentError, "expect boolean for 'log_warning', got string"),
        ("log_error", None, InvalidArgumentError, "expect boolean for 'log_error', got nothing"),
        ("log_verbose_level", True, InvalidArgumentError, "expect uint32 for .* got boolean"),
        ("log_format", False, InvalidArgumentError, "expect string for 'log_format', got boolean"),
        ("log_format", "xml", InvalidArgumentError, "invalid argument for log_format, got: xml"),
        ("log_file", "/tmp/x", UnimplementedError, "log file location can not be updated through"),
        ("log_level", "x", InvalidArgumentError, "unknown log setting 'log_level', expected one o"),
    ],
)
def test_one_wrong_setting_refuses_all(
    name: str, value: LogValue | None, error: type[CoreError], text: str
) -> None:
    control, applied = control_of()
    with pytest.raises(error, match=text):
        control.change({"log_info": False, "log_verbose_level": 2, name: value})
    assert control.values() == DEFAULTS
    assert applied == []
