"""The settings of how well models use their devices; `ServerConfig` is made of these, too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.setting import setting

__all__ = ["OperationSettings"]


@dataclass(frozen=True, kw_only=True)
class OperationSettings:
    """What a row costs, and what a device could do. `operation_faults` says what does not fit."""

    count_operations: bool = setting(
        True,
        "Count the operations of ONNX models that are scraped, in a process of low priority; needs"
        " the package onnx.",
        group="Models",
    )
    peak_operations: tuple[str, ...] = setting(
        (),
        "DEVICE=RATE: operations per second that a device was measured to reach, as CPU=9e10 or"
        " GPU=6e14; DEVICE is CPU, GPU, or a GPU's name or UUID (of a slice always one of these"
        " two); may be repeated.",
        separator=";",
        group="Models",
    )

    def peaks(self) -> dict[str, float]:
        """The `peak_operations` by device."""
        pairs = (text.rpartition("=") for text in self.peak_operations)
        return {device: float(rate) for device, _, rate in pairs}

    def operation_faults(self) -> Iterator[str]:
        """What does not fit."""
        seen = set()
        for text in self.peak_operations:
            device, _, rate = text.rpartition("=")
            if not device or not _is_rate(rate):
                yield f"--peak-operations: expected DEVICE=RATE, got {text!r}"
            elif device in seen:
                yield f"--peak-operations: {device!r} has two rates"
            seen.add(device)


def _is_rate(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
