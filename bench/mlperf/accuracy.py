"""Accuracy mode: LoadGen's log of every sample's answer, against the truth or the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mlperf.workloads import Workload


def accuracy(workload: Workload, log: Path) -> float:
    """The share of the samples whose answer in mlperf_log_accuracy.json is right.

    Where the truth is known: the greatest probability is the truth's. Elsewhere: the answer agrees
    with the reference. A sample that is missing, or there twice, counts as wrong.
    """
    entries = json.loads(log.read_text())
    answers: dict[int, bytes] = {}
    twice = set()
    for entry in entries:
        sample = int(entry["qsl_idx"])
        twice.update({sample} & answers.keys())
        answers[sample] = bytes.fromhex(entry["data"])
    right = 0
    for sample, data in answers.items():
        expected = workload.reference[sample : sample + 1]
        if sample in twice or len(data) != expected.nbytes:
            continue
        answer = np.frombuffer(data, expected.dtype).reshape(expected.shape)
        if workload.truth is None:
            right += workload.is_right(sample, answer)
        else:
            right += bool(answer.argmax() == workload.truth[sample])
    return right / workload.size
