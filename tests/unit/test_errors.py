"""The exception tree: complete, drawn as it is, and one class per code."""

import inspect
import re

import pytest

from penstock import errors
from penstock.errors import Code, ConfigError, CoreError, PenstockError, StartupError, core_error

CLASSES = {
    name: each
    for name, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, Exception)
}


def test_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"\b([A-Z]\w+Error)\b", errors.__doc__ or ""))
    assert drawn == set(CLASSES)


def test_everything_is_a_penstock_error() -> None:
    assert all(issubclass(each, PenstockError) for each in CLASSES.values())
    assert not issubclass(ConfigError, CoreError)
    assert not issubclass(StartupError, CoreError)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_code_makes_the_class_of_its_name(code: Code) -> None:
    error = core_error(code, "why")
    assert type(error).__name__ == f"{code.name.title().replace('_', '')}Error"
    assert (error.code, error.message, str(error)) == (code, "why", "why")


def test_config_error_keeps_every_fault() -> None:
    error = ConfigError(["one", "two"])
    assert error.faults == ("one", "two")
    assert str(error) == "one; two"
