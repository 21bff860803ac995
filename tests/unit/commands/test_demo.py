"""The demo's parts: its clients, its server process, its report."""

import asyncio
import sys
from typing import Any

import numpy as np
import pytest

from penstock.commands._demo_load import Load, LoadResult, close_reasons
from penstock.commands._demo_model import Digits
from penstock.commands._demo_report import bar, chart
from penstock.commands._demo_server import ServerProcess
from penstock.commands._failure import CommandError
from penstock.commands.demo import _judge
from penstock_client import InferResult, InternalError

DIGITS = Digits(
    onnx=b"",
    images=np.eye(4, 64, dtype=np.float32),
    truth=np.array([0, 1, 2, 9]),
    labels=np.array([0, 1, 2, 3]),
    probabilities=np.eye(4, 10, dtype=np.float32),
    trained_on=0,
)
SECONDS_PER_ANSWER = 0.25


class FakeModel:
    """Answers as the digits' model, and notes how many ask at a time."""

    def __init__(self, error_at: int = -1) -> None:
        self.now = 0.0
        self.answers = 0
        self.under_way = 0
        self.most = 0
        self._error_at = error_at

    def clock(self) -> float:
        return self.now

    async def infer(self, model: str, inputs: dict[str, Any]) -> InferResult:
        assert (model, inputs["X"].shape) == ("digits", (1, 64))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        self.now += SECONDS_PER_ANSWER
        self.answers += 1
        index = int(inputs["X"][0].argmax())
        label = 8 if self.answers == self._error_at else index
        probabilities = np.eye(4, 10, dtype=np.float32)[index : index + 1]
        return InferResult({"label": np.array([label]), "probabilities": probabilities})


def load(model: Any) -> Load:
    return Load([model], DIGITS, lambda passed: None, model.clock)


async def test_load_sends_every_image_however_short_the_time() -> None:
    result = await load(FakeModel()).run(seconds=0, in_flight=3)
    assert result.correct == {0: True, 1: True, 2: True, 3: False}
    assert result.accuracy == 0.75
    assert result.disagreements == []


async def test_load_goes_on_until_the_time_is_over() -> None:
    model = FakeModel()
    result = await load(model).run(seconds=25, in_flight=3)
    assert model.answers >= 100
    assert len(result.latencies_s) == model.answers
    assert model.most == 3
    assert result.throughput == pytest.approx(1 / SECONDS_PER_ANSWER)


async def test_failed_request_ends_the_load_with_its_own_error() -> None:
    class Failing(FakeModel):
        async def infer(self, model: str, inputs: dict[str, Any]) -> InferResult:
            if self.answers == 2:
                raise InternalError("no")
            return await super().infer(model, inputs)

    with pytest.raises(InternalError, match="no"):
        await load(Failing()).run(seconds=25, in_flight=3)


async def test_wrong_answer_is_a_disagreement() -> None:
    result = await load(FakeModel(error_at=2)).run(seconds=0, in_flight=1)
    assert len(result.disagreements) == 1
    assert "image 1: the server says 8, scikit-learn 1" in result.disagreements[0]


def test_percentiles() -> None:
    result = LoadResult(latencies_s=[float(n) for n in range(100, 0, -1)])
    assert [result.percentile_s(p) for p in (0, 50, 99, 100)] == [1, 51, 100, 100]


@pytest.mark.parametrize(
    ("correct", "disagreements", "fault"),
    [
        ({0: True, 1: False}, [], r"^accuracy 0\.5000 is below 0\.96$"),
        ({}, [], "accuracy 0.0000"),
        ({0: True}, ["image 3: no"], "^1 answers are not scikit-learn's: image 3: no$"),
    ],
)
def test_bad_result_fails(correct: dict[int, bool], disagreements: list[str], fault: str) -> None:
    with pytest.raises(CommandError, match=fault):
        _judge(LoadResult(correct=correct, disagreements=disagreements))


def test_good_result_passes() -> None:
    _judge(
        LoadResult(correct=dict.fromkeys(range(96), True) | dict.fromkeys(range(96, 100), False))
    )


def test_close_reasons_come_from_the_models_metrics() -> None:
    text = (
        "# TYPE penstock_batches_total counter\n"
        'penstock_batches_total{model="digits",version="1",reason="full"} 3\n'
        'penstock_batches_total{model="digits",version="2",reason="full"} 4.0\n'
        'penstock_batches_total{model="digits",version="1",reason="idle_instance"} 90\n'
        'penstock_batches_total{model="digits",version="1",reason="delay"} 0\n'
        'penstock_batches_total{model="other",version="1",reason="drain"} 5\n'
    )
    assert list(close_reasons(text).items()) == [("idle_instance", 90), ("full", 7)]


def test_chart_has_a_bar_per_range() -> None:
    lines = [line.split() for line in chart({1: 10, 3: 5, 4: 5, 33: 1})]
    assert [line[:2] for line in lines[1:]] == [
        ["1", "10"],
        ["2", "0"],
        ["3-4", "10"],
        ["5-8", "0"],
        ["9-16", "0"],
        ["17-32", "0"],
        ["33-64", "1"],
    ]
    assert lines[1][2] == lines[3][2] == "\u2588" * 40
    assert len(lines[2]) == 2


def test_chart_without_blocks_for_a_terminal_of_ascii() -> None:
    assert all(line.isascii() for line in chart({1: 3, 2: 10}, ascii_only=True))
    assert bar(0.5, ascii_only=True) == "#" * 20


def test_chart_of_nothing_is_a_heading() -> None:
    assert len(list(chart({}))) == 1


@pytest.mark.parametrize(("share", "length"), [(0.0, 0), (1e-9, 1), (0.5, 20), (1.0, 40)])
def test_bar_lengths(share: float, length: int) -> None:
    assert len(bar(share)) == length


def python(*lines: str) -> ServerProcess:
    return ServerProcess([sys.executable, "-c", "\n".join(lines)])


READY = (
    "import signal, sys",
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
    'print(\'{"message":"penstock 1 is ready: gRPC a:1, HTTP b:2, metrics c:3"}\','
    " file=sys.stderr, flush=True)",
    "signal.sigwait([signal.SIGTERM])",
)


async def test_server_is_started_when_it_says_so_and_stops_on_sigterm() -> None:
    server = python(*READY)
    try:
        await server.start()
        assert (server.grpc, server.metrics) == ("a:1", "c:3")
        await server.stop()
    finally:
        await server.kill()


async def test_server_that_ends_at_start_tells_its_last_words() -> None:
    server = python("import sys", "sys.exit('no such directory')")
    with pytest.raises(CommandError, match="^the server did not start: no such directory$"):
        await server.start()
    await server.kill()


async def test_server_that_ends_badly_fails_the_stop() -> None:
    server = python(*READY, "sys.exit('lost a request')")
    try:
        await server.start()
        with pytest.raises(CommandError, match="ended with exit code 1: lost a request$"):
            await server.stop()
    finally:
        await server.kill()


async def test_settings_of_another_server_are_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_GRPC_PORT", "1")
    server = python("import os, sys", "sys.exit(os.environ.get('PENSTOCK_GRPC_PORT', 'unset'))")
    with pytest.raises(CommandError, match=": unset$"):
        await server.start()
    await server.kill()
