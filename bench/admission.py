"""What asking callers who they are costs a call, measured from Python.

Each round makes many calls of `Access.identify` and `Access.admit`, as the asyncio lane does for
one message that infers nothing; the crossing from Python is part of each figure. The first row is
what the lane does without a policy: `admit` alone.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Mapping

from penstock.core import AccessPolicy, Caller, Core, Principal

KEY = "k" * 43
TOKEN = "t" * 800
METADATA = (("user-agent", "grpc-python/1.81"), ("triton-grpc-protocol-admin", "s3cret"))
RESTRICTED = {"metadata": ("triton-grpc-protocol-admin", "s3cret")}
RATE = 1e6


def core_with(policy: AccessPolicy | None) -> Core:
    """A core that knows one key and one token."""
    core = Core(backend_directories=[], access=policy)
    principal = Principal(name="key 'a'", groups=["metadata"], per_second=RATE, burst=RATE)
    core.access.set_keys([(hashlib.sha256(KEY.encode()).digest(), principal)])
    return core


def measure(call: Callable[[], None], calls: int, rounds: int) -> list[float]:
    """Microseconds per call, one figure per round."""
    figures = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        figures.append((time.perf_counter() - begin) / calls * 1e6)
    return figures


def asking(policy: AccessPolicy, credential: str) -> Callable[[], None]:
    """A call that says who it is."""
    access = core_with(policy).access
    metadata = (*METADATA, ("authorization", f"Bearer {credential}"))
    caller: Caller = access.identify(metadata, "c")
    access.accept(caller, Principal(name="token of 'a'", groups=["metadata"]), 1e6)

    def call() -> None:
        access.admit("metadata", 100, access.identify(metadata, "ipv4:127.0.0.1:50000"))

    return call


def cases() -> Mapping[str, Callable[[], None]]:
    """What is measured, by name."""
    plain = core_with(None).access
    rated = AccessPolicy(needs_identity=True, connection_rate=RATE, connection_burst=RATE)
    tokens = AccessPolicy(needs_identity=True, has_tokens=True)
    return {
        "no policy": lambda: plain.admit("metadata", 100),
        "restricted group": asking(AccessPolicy(restricted=RESTRICTED), KEY),
        "key": asking(AccessPolicy(needs_identity=True), KEY),
        "key, rate of the connection": asking(rated, KEY),
        "token of 800 bytes": asking(tokens, TOKEN),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name, call in cases().items():
        figures = measure(call, options.calls, options.rounds)
        low, high = min(figures), max(figures)
        print(f"{name:30} {statistics.median(figures):6.2f} us  ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
