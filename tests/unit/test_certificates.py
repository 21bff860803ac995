"""PEM files that will not do are told by what is wrong with them."""

import ssl
from pathlib import Path

import pytest

from penstock.certificates import client_context, load_pair, load_roots, signature
from penstock.errors import StartupError


@pytest.fixture
def context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def test_files_that_are_not_there_cannot_be_read(context: ssl.SSLContext, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    with pytest.raises(StartupError, match=r"cannot read .*gone\.pem: No such file"):
        load_roots(context, gone)
    with pytest.raises(StartupError, match=r"cannot read certificate .* or key .*: No such file"):
        load_pair(context, gone, gone)
    with pytest.raises(StartupError, match=r"cannot read .*gone\.pem: No such file"):
        client_context(gone)
    assert signature(gone) is None


def test_files_that_are_no_pem_are_no_certificates(context: ssl.SSLContext, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(StartupError, match=r"text\.pem holds no certificates"):
        load_roots(context, text)
    with pytest.raises(StartupError, match="are no pair"):
        load_pair(context, text, text)
    with pytest.raises(StartupError, match=r"text\.pem holds no certificates"):
        client_context(text)


def test_client_checks_names_and_trusts_the_system_unless_told_otherwise() -> None:
    made = client_context()
    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED
