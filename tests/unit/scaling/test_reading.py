"""What a replica says, read: our own exposition comes through, anything else is refused whole."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.examples import EXAMPLES

from penstock.observe.exposition import Family, render
from penstock.scaling.reading import MAX_LINE, ReadingError, gateway_waiting, read_metrics
from penstock.scaling.signals import Counters

names = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)
numbers = st.floats(0, 1e15)


def sample(name: str, value: object, labels: str = 'model="m",version="1"') -> str:
    return f"{name}{{{labels}}} {value}\n"


@EXAMPLES
@given(names, names, numbers)
@example('a"b\\n\\', "1", 1.5)
@example("a\u2028b\x85c\n", "}  9", 0.25)
def test_what_the_server_writes_is_read_again(model: str, version: str, value: float) -> None:
    family = Family("penstock_pending_requests", "", "gauge")
    family.add({"model": model, "version": version}, value)
    read = read_metrics(render([family]).decode())
    assert read == {(model, version): Counters(pending=value)}


def test_counters_are_kept_as_they_were_read() -> None:
    text = sample("penstock_instance_busy_seconds_total", 10) + sample(
        "penstock_background_busy_seconds_total", 4
    )
    assert read_metrics(text)["m", "1"] == Counters(busy_s=10, background_s=4)


def test_reasons_are_added_up_and_microseconds_become_seconds() -> None:
    text = "".join(
        sample("penstock_rejected_total", n, f'model="m",version="1",reason="{n}"') for n in (2, 3)
    ) + sample("nv_inference_queue_duration_us", 2_500_000)
    assert read_metrics(text)["m", "1"] == Counters(rejected=5, queue_s=2.5)


def test_what_is_of_no_interest_is_let_be() -> None:
    assert read_metrics("# HELP x {\nother{broken NaN\n\npython_gc 1\n") == {}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (sample("penstock_instances", "NaN"), "penstock_instances is NaN"),
        (sample("penstock_instances", "-1"), "penstock_instances is -1"),
        (sample("penstock_instances", "1e999"), "is 1e999"),
        (sample("penstock_instances", "1.1e18"), "is 1.1e18"),
        (sample("penstock_rejected_total", "1e308") * 2, "penstock_rejected_total is 1e308"),
        (sample("penstock_instances", "one"), "no sample"),
        (sample("penstock_instances", 1, 'model="m"'), "without a model and a version"),
        (sample("penstock_instances", 1, 'model="m'), "no labels"),
        (sample("penstock_instances", 1, f'model="{"m" * MAX_LINE}",version="1"'), "no sample"),
        ("penstock_instances", "no sample"),
    ],
)
def test_line_that_cannot_be_refuses_the_whole_answer(line: str, why: str) -> None:
    with pytest.raises(ReadingError, match=why):
        read_metrics(sample("penstock_pending_requests", 1) + line)


def test_more_versions_than_any_server_has_are_refused() -> None:
    text = "".join(
        sample("penstock_instances", 1, f'model="m",version="{n}"') for n in range(10_001)
    )
    with pytest.raises(ReadingError, match="more than 10000 versions"):
        read_metrics(text)


@EXAMPLES
@given(st.text())
def test_no_text_does_harm(text: str) -> None:
    for line in (text, f"penstock_instances{text}", f'penstock_instances{{model="{text}'):
        try:
            read = read_metrics(line)
        except ReadingError:
            continue
        assert all(math.isfinite(each.instances) for each in read.values())


def test_gateway_says_how_many_wait() -> None:
    assert gateway_waiting("x 1\npenstock_gateway_waiting_requests 7\n") == 7
    with pytest.raises(ReadingError, match="is 1e308"):
        gateway_waiting("penstock_gateway_waiting_requests 1e308\n")
    with pytest.raises(ReadingError, match="no penstock_gateway_waiting_requests"):
        gateway_waiting("x 1\n")
