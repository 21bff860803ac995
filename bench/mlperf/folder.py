"""A run's folder: nothing in it may be of another run, or pass for a whole one."""

from __future__ import annotations

import shutil
from pathlib import Path

PARTIAL = "PARTIAL"  # a file beside logs that end in the middle
_OURS = (
    "mlperf_log_*",
    "report.*",
    "results.json",
    "plots",
    "calibration",
    "overhead",
    "probe-*",
    "confirm-*",
    PARTIAL,
)
_TEXT = "The run has not ended: the logs beside this file are incomplete.\n"


def clear(output: Path) -> list[str]:
    """Removes what an earlier run left there, and marks it as partial until this one has ended.

    Returns:
        What the reader of this run must know of that one.
    """
    notes = []
    if (output / PARTIAL).exists():
        notes.append("the run before in this folder did not end: its partial logs were removed")
    for pattern in _OURS:
        for path in output.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    mark_partial(output)
    return notes


def mark_partial(output: Path) -> Path:
    """The mark, which whoever ends the run removes."""
    output.mkdir(parents=True, exist_ok=True)
    mark = output / PARTIAL
    mark.write_text(_TEXT)
    return mark
