"""Accuracy mode: LoadGen's log of every sample's answer, against the truth or the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mlperf.workloads import Array, Workload


def accuracy(workload: Workload, log: Path) -> float:
    """The share of the samples whose answer in mlperf_log_accuracy.json is right.

    What is right is the workload's affair. A sample that is missing, or there twice, is wrong.
    """
    entries = json.loads(log.read_text())
    answers: dict[int, bytes] = {}
    twice = set()
    for entry in entries:
        sample = int(entry["qsl_idx"])
        twice.update({sample} & answers.keys())
        answers[sample] = bytes.fromhex(entry["data"])
    arrays: dict[int, Array] = {}
    for sample, data in answers.items():
        expected = workload.reference[sample : sample + 1]
        if sample not in twice and len(data) == expected.nbytes:
            arrays[sample] = np.frombuffer(data, expected.dtype).reshape(expected.shape)
    return workload.score(arrays)
