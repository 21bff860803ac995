"""What `/metrics` shows of following the model store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.observe.exposition import Family

__all__ = ["store_families"]


def store_families(stats: Mapping[str, Any]) -> Iterator[Family]:
    """The families of a server that serves an environment.

    Args:
        stats: `is_up`, `unreported`, `generation`, `deployments` by outcome, and `serving`:
            version and digest by model.
    """
    for name, text, value in (
        ("penstock_store_up", "1 while the model store can be reached", stats["is_up"]),
        ("penstock_store_generation", "Change of the environment seen last", stats["generation"]),
        ("penstock_store_unreported", "Outcomes that the store was not told", stats["unreported"]),
    ):
        family = Family(name, text, "gauge")
        family.add({}, float(value))
        yield family
    done = Family("penstock_store_deployments_total", "Deployments, by outcome", "counter")
    for outcome, count in stats["deployments"].items():
        done.add({"outcome": outcome}, count)
    yield done
    deployed = Family("penstock_deployed_info", "What serves, by the digest it loaded", "gauge")
    for model, (version, digest) in stats["serving"].items():
        deployed.add({"model": model, "version": str(version), "digest": digest}, 1.0)
    yield deployed
