"""Which versions of a model are served: a pure function of the policy and of what is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.codec import VersionPolicy
from penstock.errors import ConfigError

DEFAULT_POLICY = VersionPolicy("latest", num_versions=1)
"""Where a configuration says nothing: the greatest version only."""


def version_number(name: str) -> int | None:
    """The version that a directory of this name holds; None if it is none.

    A name that starts with 0 or is not a number is ignored, so `0`, `01`, `tmp` and `1.old` may lie
    beside the versions.
    """
    if not (name.isascii() and name.isdigit()) or name.startswith("0") or len(name) > 18:
        return None
    return int(name)


def choose_versions(policy: VersionPolicy | None, available: Iterable[int]) -> Sequence[int]:
    """The versions to serve, ascending.

    Args:
        policy: of the configuration; None = DEFAULT_POLICY.
        available: versions in the model's directory.

    Specific versions that do not exist are left out (`missing_versions` tells them), as long as one
    does: a repository may name versions that have not been copied yet.

    Raises:
        ConfigError: there is none to serve.
    """
    policy = policy or DEFAULT_POLICY
    found = sorted(set(available))
    if not found:
        raise ConfigError(["no version directory: expected at least one named 1, 2, ..."])
    if policy.kind == "all":
        return found
    if policy.kind == "latest":
        return found[-policy.num_versions :]
    chosen = sorted(set(policy.versions) & set(found))
    if not chosen:
        wanted = ", ".join(map(str, policy.versions)) or "at least one"
        raise ConfigError(
            [
                f"version_policy.specific.versions: expected {wanted}, "
                f"found {', '.join(map(str, found))}"
            ]
        )
    return chosen


def missing_versions(policy: VersionPolicy | None, available: Iterable[int]) -> Sequence[int]:
    """Specific versions that the policy names and that do not exist, ascending."""
    if policy is None or policy.kind != "specific":
        return []
    return sorted(set(policy.versions) - set(available))
