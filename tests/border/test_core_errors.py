"""Errors over the border: a Status is a CoreError by code, a programming error is Python's own."""

import math
from collections.abc import Callable

import pytest
from tests.support.core_models import load, make_engine, request, serve, spec, take

from penstock import _core
from penstock.errors import (
    Code,
    CoreError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    core_error,
)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_every_code_has_its_error(code: Code) -> None:
    error = core_error(int(code), "why")

    assert isinstance(error, CoreError)
    assert error.code is code
    assert str(error) == "why"


def refuse_after_stop(engine: _core.Engine) -> None:
    engine.stop_accepting()
    engine.infer(request(), 0, "late", False)
    ((_, code, _, message),) = take(engine, 1)
    raise core_error(code, message or "")


def warm_up_wrongly(engine: _core.Engine) -> None:
    engine.create_version(load(engine), spec()).warm_up(b"\xff")


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        pytest.param(
            lambda engine: engine.load_model(
                backend="nothing",
                model_name="m",
                version=1,
                path="",
                model_directory="",
                parameters={},
            ),
            NotFoundError,
            "unknown backend 'nothing'",
            id="unknown_backend",
        ),
        pytest.param(
            lambda engine: load(engine, kind="fail_load", message="no luck"),
            InternalError,
            "model 'm' version 1: no luck",
            id="load_failure",
        ),
        pytest.param(
            lambda engine: engine.create_version(
                load(engine), spec(inputs=[_core.InputSpec("X", "FP32", [-1])])
            ),
            FailedPreconditionError,
            "input 'X' is not in the model file",
            id="unknown_input",
        ),
        pytest.param(
            lambda engine: engine.create_version(load(engine), spec(instance_count=0)),
            InvalidArgumentError,
            "instance count must be >= 1",
            id="no_instance",
        ),
        pytest.param(warm_up_wrongly, InvalidArgumentError, "malformed", id="warm_up"),
        pytest.param(
            lambda engine: engine.access.admit("metadata", 1001),
            ResourceExhaustedError,
            "request of 1001 bytes exceeds the limit of 1000 bytes",
            id="size",
        ),
        pytest.param(refuse_after_stop, UnavailableError, "shutting down", id="stopped"),
    ],
)
def test_status_arrives_as_the_error_of_its_code(
    act: Callable[[_core.Engine], object], error: type[CoreError], text: str
) -> None:
    engine = make_engine(max_request_bytes=1000)

    with pytest.raises(error, match=text):
        act(engine)


@pytest.mark.parametrize(
    ("act", "error", "text"),
    [
        (lambda e: _core.InputSpec("X", "FP31", []), ValueError, "unknown datatype 'FP31'"),
        (lambda e: _core.OutputSpec("X", "FP32", [1] * 17), ValueError, "rank 17 is over"),
        (lambda e: _core.QueuePolicy(default_timeout_us=-1), ValueError, "must be >= 0"),
        (lambda e: e.access.admit("other", 0), ValueError, "unknown group 'other'"),
        (lambda e: e.access.admit("inference", 0), ValueError, "inference is admitted by infer"),
        (lambda e: e.access.identify(("text",), "c"), TypeError, "pairs of key and value"),
        (lambda e: e.access.set_keys([(b"short", None)]), TypeError, "a principal is None"),
        (lambda e: e.infer("text", 0, None, False), TypeError, "infer"),
        (lambda e: e.create_version(None, spec()), TypeError, "create_version"),
        (lambda e: e.set_serving("m", [None]), TypeError, "None"),
        (lambda e: e.wait_idle(math.nan), ValueError, "timeout_s"),
        (lambda e: e.shutdown(math.nan), ValueError, "timeout_s is not a number"),
    ],
)
def test_programming_errors_are_pythons_own(
    act: Callable[[_core.Engine], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        act(make_engine())


@pytest.mark.parametrize("timeout_s", [math.inf, 1e300])
def test_endless_timeouts_do_not_end_at_once(timeout_s: float) -> None:
    engine = make_engine()
    version = serve(engine, execute_delay_ms="50")
    engine.infer(request(), 0, "tag", False)
    done = engine.flush()

    assert version.drain(timeout_s)
    assert [(tag, code) for tag, code, _, _ in done + engine.take_completions()] == [("tag", 0)]
    assert engine.wait_idle(timeout_s)
    assert engine.shutdown(timeout_s)


def test_failures_of_inference_are_completions_with_their_code() -> None:
    engine = make_engine()
    serve(engine, kind="fail", message="no luck")
    engine.infer(request(), 0, "fails", False)
    engine.infer(request("nobody"), 0, "unknown", False)
    engine.infer(b"\xff", 0, "garbage", False)
    engine.infer(request(rows=2), 0, "too many rows", False)
    engine.infer(request(), 1, "late", False)

    outcomes = {tag: (code, message) for tag, code, _, message in take(engine, 5)}

    assert outcomes["fails"] == (Code.INTERNAL, "no luck")
    assert outcomes["unknown"][0] == Code.NOT_FOUND
    assert outcomes["garbage"][0] == Code.INVALID_ARGUMENT
    assert "batch-size must be <= 1" in (outcomes["too many rows"][1] or "")
    assert outcomes["late"] == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
