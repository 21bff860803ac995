"""Runs make targets one after another and closes with one line, `N passed, N failed`.

Used by `make test`. A target that leaves JUnit reports (build/reports/<target>.xml, or in the
folder of its name) counts their test cases; one that does not (lint, say) counts as one. A failing
target does not stop the next, except `dev`: without a build there is nothing to test.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "reports"


class Outcome(NamedTuple):
    """What one target came to."""

    target: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def run(target: str) -> Outcome:
    """Runs one target and counts from its report."""
    (REPORTS / f"{target}.xml").unlink(missing_ok=True)
    shutil.rmtree(REPORTS / target, ignore_errors=True)
    print(f"\n==== make {target}", flush=True)
    began = time.monotonic()
    status = subprocess.run(["make", "--no-print-directory", target], cwd=ROOT).returncode
    seconds = time.monotonic() - began
    reports = [*REPORTS.glob(f"{target}.xml"), *(REPORTS / target).glob("*.xml")]
    passed = failed = skipped = 0
    for counted in map(count, reports):
        passed, failed, skipped = passed + counted[0], failed + counted[1], skipped + counted[2]
    if status != 0 and failed == 0:
        failed = 1  # it failed outside its test cases: a build, a crash of the runner
    elif status == 0 and not reports:
        passed = 1
    return Outcome(target, passed, failed, skipped, seconds)


def count(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped test cases of a JUnit file (pytest's or GoogleTest's)."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = sum(has(case, "failure") or has(case, "error") for case in cases)
    skipped = sum(has(case, "skipped") for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def has(case: ElementTree.Element, tag: str) -> bool:
    """Whether the case has such a child (an Element without children is falsy)."""
    return case.find(tag) is not None


def main(targets: list[str]) -> int:
    """Runs all, prints the table and the closing line."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    closing_line = REPORTS / "closing-line"
    closing_line.unlink(missing_ok=True)
    outcomes: list[Outcome] = []
    for target in targets:
        outcomes.append(run(target))
        if target == "dev" and outcomes[-1].failed:
            break
    print()
    for outcome in outcomes:
        print(
            f"{outcome.target:<14}{outcome.passed:>6} passed {outcome.failed:>4} failed"
            f" {outcome.skipped:>4} skipped {outcome.seconds:>7.1f} s"
        )
    failed = sum(outcome.failed for outcome in outcomes)
    line = f"{sum(outcome.passed for outcome in outcomes)} passed, {failed} failed"
    closing_line.write_text(line + "\n")
    print(line)
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
