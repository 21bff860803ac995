"""Devices as models name them, and as CUDA_VISIBLE_DEVICES does.

A process that builds sees one device, as the worker does that will run what it built, and both find
it by the same rules: those of `csrc/backends/device_worker/device_name.cc`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock.engines.kept import EngineError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Of the environment: which devices a process sees, and in which order."""
_NUMBER = re.compile(r"[0-9]{1,9}")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,60}")  # MIG-GPU-.../1/0, of old drivers


def find_visible(device: str, visible: str | None) -> str:
    """What CUDA_VISIBLE_DEVICES has to be for a process that sees that device alone.

    Args:
        device: a number among those that this process sees, or a UUID, "GPU-..." or "MIG-...".
        visible: its own CUDA_VISIBLE_DEVICES; None: it is not set, and all are seen.

    Raises:
        EngineError: it is neither, or this process does not see it.
    """
    is_number = _NUMBER.fullmatch(device) is not None
    if not is_number and not _UUID.fullmatch(device):
        raise EngineError(f"'{device}' is no device, expected a number or a UUID")
    if visible is None:
        return device
    entries = list(_entries(visible))
    if is_number:
        if int(device) < len(entries):
            return entries[int(device)]
        raise EngineError(f"there is no GPU {device}: {len(entries)} are seen ({VISIBLE_DEVICES})")
    # Either may be cut short.
    meant = [each for each in entries if each.startswith(device) or device.startswith(each)]
    if len(meant) == 1:
        return meant[0]
    if not meant and not any(map(_NUMBER.fullmatch, entries)):
        raise EngineError(
            f"there is no GPU '{device}': {len(entries)} others are seen ({VISIBLE_DEVICES})"
        )
    return device  # which UUID a number stands for only the driver knows


def _entries(visible: str) -> Iterator[str]:
    """CUDA sees none from the first on that is no device."""
    for each in visible.split(","):
        entry = each.strip(" ")
        if not _NUMBER.fullmatch(entry) and not _UUID.fullmatch(entry):
            return
        yield entry
