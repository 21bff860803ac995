"""The exception tree: a class per status code, readable text, and errors that survive a pickle."""

import pickle

import grpc
import pytest

from penstock_client import (
    DeadlineExceededError,
    NotFoundError,
    PenstockError,
    RpcError,
    StreamResponseError,
    TensorError,
    UnavailableError,
    UnknownError,
)
from penstock_client.errors import error_class


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_code_has_a_class_of_its_own(code: grpc.StatusCode) -> None:
    cls = error_class(code)
    assert cls.code is code
    assert issubclass(cls, RpcError)
    assert cls.__name__ == code.name.title().replace("_", "") + "Error"


def test_ok_is_no_error() -> None:
    with pytest.raises(KeyError):
        error_class(grpc.StatusCode.OK)


def test_unknown_code_is_the_general_class_not_the_stream_one() -> None:
    assert error_class(grpc.StatusCode.UNKNOWN) is UnknownError


def test_text_names_code_message_model_request_and_attempts() -> None:
    error = UnavailableError("full", model="m", request_id="r1", attempts=3)
    assert str(error) == "UNAVAILABLE: full [model 'm', request 'r1', 3 attempts]"
    assert str(UnavailableError("full")) == "UNAVAILABLE: full"


@pytest.mark.parametrize("cls", [NotFoundError, DeadlineExceededError, StreamResponseError])
def test_pickled_error_keeps_everything(cls: type[RpcError]) -> None:
    error = cls("gone", details={"a": "b"}, model="m", request_id="r", attempts=2)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_errors_are_also_the_builtin_ones_they_resemble() -> None:
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(TensorError, ValueError)
    assert issubclass(TensorError, PenstockError)
