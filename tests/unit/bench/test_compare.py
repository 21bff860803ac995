"""What bench/compare.py says of ratios."""

from pathlib import Path

import compare
import pytest


def test_interval_holds_the_median_and_narrows_where_rounds_agree() -> None:
    middle, low, high = compare.interval([0.9, 1.0, 1.1, 1.0, 0.95, 1.05])
    assert low < middle == 1.0 < high
    assert compare.interval([1.2] * 5) == (1.2, 1.2, 1.2)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(1.01, 1.2, "quicker"), (0.8, 0.99, "slower"), (0.9, 1.1, "no difference shown")],
)
def test_only_an_interval_without_1_is_a_difference(low: float, high: float, says: str) -> None:
    assert compare.verdict(low, high, 6) == says
    assert compare.verdict(low, high, 5) == "too few rounds to say"


def test_rounds_alternate_and_compare_what_both_have(tmp_path: Path) -> None:
    order = tmp_path / "order"
    programs = {}
    for name, rate in (("base", 100), ("head", 150)):
        rows = [{"name": "BM_A", "items_per_second": rate}]
        rows += [{"name": f"BM_{name}", "items_per_second": 1}]
        programs[name] = tmp_path / name
        text = str({"benchmarks": rows}).replace("'", '"')
        programs[name].write_text(f"#!/bin/sh\necho {name} >>{order}\necho '{text}'\n")
        programs[name].chmod(0o755)
    ratios = compare.compare(programs["base"], programs["head"], 3, ".")
    assert ratios == {"BM_A": [1.5, 1.5, 1.5]}
    assert order.read_text().split() == ["base", "head", "head", "base", "base", "head"]
