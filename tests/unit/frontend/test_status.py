"""Every code goes through both borders: the core's Status -> CoreError -> gRPC status."""

import logging
from urllib.parse import quote

import grpc
import pytest

from penstock.errors import Code, CoreError, InternalError, UnknownError, core_error
from penstock.frontend.status import GRPC_STATUS, abort, presentable


class FakeContext:
    def __init__(self) -> None:
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted = (code, details)
        raise grpc.aio.AbortError


@pytest.mark.parametrize("code", list(Code))
def test_status_has_the_number_of_the_code(code: Code) -> None:
    number, _ = GRPC_STATUS[code].value
    assert number == code


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_code_of_the_core_reaches_the_client(code: Code) -> None:
    error = core_error(int(code), "why")
    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await abort(context, error, "ModelInfer")
    assert context.aborted == (grpc.StatusCode[code.name], "why")


@pytest.mark.parametrize("letter", ["x", "é", "%", "\n", "語"])
@pytest.mark.parametrize("length", [100, 5000, 9000, 1_000_000])
async def test_message_fits_the_trailers(letter: str, length: int) -> None:
    context = FakeContext()
    message = "why: " + letter * length
    with pytest.raises(grpc.aio.AbortError):
        await abort(context, core_error(5, message), "ModelMetadata")
    assert context.aborted is not None
    sent = context.aborted[1]
    assert len(quote(sent)) < 8192
    assert sent == message or sent.endswith(letter + "...")
    assert sent == message or length > 100


def test_every_code_but_ok_has_its_own_class() -> None:
    classes = {core_error(code, "").__class__ for code in Code if code is not Code.OK}
    assert len(classes) == len(Code) - 1
    assert classes == set(CoreError.__subclasses__())


@pytest.mark.parametrize("number", [0, 17, -1, 999])
def test_number_that_is_no_failure_becomes_unknown(number: int) -> None:
    assert isinstance(core_error(number, "x"), UnknownError)


def test_defect_is_shown_by_id_and_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        shown = presentable(ZeroDivisionError("inner text"), "ModelConfig")
    assert isinstance(shown, InternalError)
    assert "inner text" not in shown.message
    assert shown.message.rsplit(" ", 1)[1] in caplog.text
    assert "inner text" in caplog.text


async def test_failure_of_the_call_itself_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    context = FakeContext()
    failure = grpc.aio.InternalError('Failed "execute_batch": (<operation>,)')
    with pytest.raises(grpc.aio.InternalError):
        await abort(context, failure, "ModelStreamInfer")
    assert context.aborted is None
    assert not caplog.records
