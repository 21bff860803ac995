"""What other programs print, as facts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_GTEST_PASSED = re.compile(r"^\[  PASSED  \] (\d+) tests?\.", re.MULTILINE)
_GTEST_SKIPPED = re.compile(r"^\[  SKIPPED \] (\d+) tests?", re.MULTILINE)
_GTEST_FAILED = re.compile(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)(?: \(|,|$)", re.MULTILINE)
_GTEST_REASON = re.compile(r": Skipped\n(\S[^\n]*)")
_SANITIZER = re.compile(r"=+ ERROR SUMMARY: (\d+) errors?")


@dataclass(frozen=True)
class Tests:
    """What a program of GoogleTest said.

    Attributes:
        passed: how many did, skipped ones not counted.
        skipped: how many were.
        failed: the names of those that did.
        why_skipped: what the first one said; "" where none was.
    """

    passed: int
    skipped: int
    failed: tuple[str, ...]
    why_skipped: str = ""


def parse_gtest(output: str) -> Tests:
    """Reads the summary.

    Raises:
        ValueError: There is none: the program ended before.
    """
    passed = _GTEST_PASSED.search(output)
    if passed is None:
        raise ValueError("the tests ended before their summary")
    skipped = _GTEST_SKIPPED.search(output)
    failed = tuple(dict.fromkeys(_GTEST_FAILED.findall(output)))
    reason = _GTEST_REASON.search(output)
    return Tests(
        int(passed[1]), int(skipped[1]) if skipped else 0, failed, reason[1] if reason else ""
    )


def parse_sanitizer(output: str) -> int:
    """The errors that compute-sanitizer counted.

    Raises:
        ValueError: It has no summary.
    """
    found = _SANITIZER.findall(output)
    if not found:
        raise ValueError("compute-sanitizer ended before its summary")
    return sum(int(count) for count in found)


@dataclass(frozen=True)
class LoadRun:
    """A run of LoadGen's.

    Attributes:
        verdict: "VALID", "INVALID", or why there is none.
        samples_per_s: that were answered rightly.
        p99_ms: latency; in Offline, where all are asked for at once, of no meaning.
        sut: what stood between LoadGen and the target: "C++" or "Python"; "" where it is not said.
        batch_rows: rows of a batch, the mean; None where the server told of none.
        reasons: why it is not VALID.
    """

    verdict: str
    samples_per_s: float
    p99_ms: float | None
    sut: str = ""
    batch_rows: float | None = None
    reasons: tuple[str, ...] = ()


def parse_mlperf(text: str) -> LoadRun:
    """A run's results.json, as bench.mlperf writes it.

    Raises:
        ValueError: It is none, or says of no rate.
    """
    try:
        content = json.loads(text)
        table = content["tables"]["Result"]
        facts = dict(table)
        rate = float(facts["answers per second"].replace(",", ""))
        latency = facts.get("latency p99 (LoadGen)", "").removesuffix(" ms").replace(",", "")
        rows = facts.get("rows of a batch, mean", "")
        return LoadRun(
            str(facts["result"]),
            rate,
            float(latency) if latency else None,
            facts.get("system under test (SUT)", "").partition(",")[0],
            float(rows) if rows else None,
            tuple(str(value) for name, value in table if name == "why not"),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no results of bench.mlperf: {error}") from None


def notes_in(output: str) -> list[str]:
    """What one of bench.gpu's own programs says besides its figures: lines that begin with "- "."""
    return [line[2:] for line in output.splitlines() if line.startswith("- ")]


def last_line(output: str) -> str:
    """The last line with anything in it: what a program that failed said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
