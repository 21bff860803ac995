"""What `/metrics` shows of instances that come and go, and of models under a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.observe.exposition import Family

__all__ = ["instance_changes", "memory_families"]


def instance_changes(changes: Mapping[tuple[str, int, str], int]) -> Family:
    """Changes of the number of instances, by model, version and what happened."""
    family = Family(
        "penstock_instance_changes_total", "Instances added and removed while serving", "counter"
    )
    for (model, version, change), count in changes.items():
        family.add({"model": model, "version": str(version), "change": change}, count)
    return family


def memory_families(memory: Mapping[str, Any], waits: Mapping[str, Any]) -> Iterator[Family]:
    """The families of a server with a memory budget.

    Args:
        memory: `budget`, `resident` by model, `evictions`, and `loads` on demand by outcome.
        waits: a histogram of the core, in microseconds.
    """
    budget = Family("penstock_model_memory_budget_bytes", "Memory that models may take", "gauge")
    budget.add({}, memory["budget"])
    yield budget
    resident = Family("penstock_model_resident_bytes", "Memory that a model takes", "gauge")
    for model, size in memory["resident"].items():
        resident.add({"model": model}, size)
    yield resident
    evictions = Family(
        "penstock_model_evictions_total", "Idle models unloaded to make room", "counter"
    )
    evictions.add({}, memory["evictions"])
    yield evictions
    loads = Family("penstock_model_loads_on_demand_total", "Loads on demand, by outcome", "counter")
    for outcome, count in memory["loads"].items():
        loads.add({"outcome": outcome}, count)
    yield loads
    wait = Family(
        "penstock_model_load_wait_seconds", "Time of requests until their model's load", "histogram"
    )
    bounds = [bound / 1e6 for bound in waits["bounds"]]
    wait.add_histogram({}, bounds, waits["counts"], waits["sum"] / 1e6)
    yield wait
