"""Start to ready, and memory, of `penstock serve` with the digits model.

Run: .venv/bin/python bench/startup.py [--rounds 7]

Time from exec to the first answer to ServerReady (warm page cache); resident memory after one
inference.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _measure
import numpy as np

import penstock_client


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    ready_s, memory_mb = [], []
    with _measure.digits_repository() as repository:
        for _ in range(rounds + 1):
            elapsed_s, resident_mb = start_once(repository)
            ready_s.append(elapsed_s)
            memory_mb.append(resident_mb)
    print(f"start to ready {_measure.Spread(tuple(ready_s[1:]))} s")
    print(f"resident       {_measure.Spread(tuple(memory_mb[1:]))} MiB")


def start_once(repository: Path) -> tuple[float, float]:
    """Seconds until the server answers that it is ready, and MiB after one inference."""
    begin = time.monotonic()
    with _measure.penstock(repository) as (process, address):
        with penstock_client.Client(address) as client:
            if not client.server_ready():
                raise SystemExit("the server said READY but does not answer so")
            elapsed_s = time.monotonic() - begin
            client.infer("digits", {"X": np.zeros((1, 64), np.float32)})
        return elapsed_s, _measure.rss_mb(process.pid)


if __name__ == "__main__":
    main()
