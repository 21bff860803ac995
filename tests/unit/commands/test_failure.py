"""What a command says of a failure."""

import pytest

from penstock.commands._failure import CommandError, client_errors


def test_argument_that_is_not_utf8_is_one_clear_line() -> None:
    with pytest.raises(CommandError, match="is not UTF-8"), client_errors("localhost:8001"):
        "digits\udcff".encode()
