"""The flags of `penstock serve`."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from penstock.commands._flags import Texts, given_settings, with_flags
from penstock.config import ServerConfig, setting_fields


def parsed(*arguments: str) -> Texts:
    """What a command with the generated flags is given."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    seen: list[Texts] = []
    app.command()(with_flags(seen.append))
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_every_setting_has_a_flag() -> None:
    given = [f"{field.flag}=7" for field in setting_fields()]
    assert parsed(*given).keys() == {field.name for field in setting_fields()}


def test_every_further_spelling_sets_its_field() -> None:
    for field in setting_fields():
        for flag in field.setting.flags:
            assert parsed(f"{flag}=7").keys() == {field.name}


def test_nothing_given_leaves_all_to_the_defaults() -> None:
    assert parsed() == {}


@pytest.mark.parametrize("form", [["--exit-on-error=false"], ["--exit-on-error", "false"]])
def test_booleans_take_a_value_as_tritons_do(form: list[str]) -> None:
    config = ServerConfig.from_text(given_settings(parsed("repo", *form), {}))
    assert config.exit_on_error is False


def test_positional_repositories_come_first() -> None:
    given = parsed("a", "b", "--model-repository", "c", "--model-repository=d")
    config = ServerConfig.from_text(given_settings(given, {}))
    assert config.model_repository == (Path("a"), Path("b"), Path("c"), Path("d"))


def test_flag_wins_over_environment() -> None:
    environment = {"PENSTOCK_GRPC_PORT": "1", "PENSTOCK_HTTP_PORT": "2", "OTHER": "3"}
    assert given_settings({"grpc_port": "9"}, environment) == {"grpc_port": "9", "http_port": "2"}


def test_environment_separates_what_a_flag_repeats() -> None:
    environment = {
        "PENSTOCK_MODEL_REPOSITORY": "a,b",
        "PENSTOCK_BACKEND_CONFIG": "onnxruntime,x=1,2;openvino,y=2",
    }
    assert given_settings({}, environment) == {
        "model_repository": ["a", "b"],
        "backend_config": ["onnxruntime,x=1,2", "openvino,y=2"],
    }


def test_empty_variable_is_not_set() -> None:
    assert given_settings({}, {"PENSTOCK_GRPC_PORT": ""}) == {}
