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

    Raises:
        ConfigError: there is none to serve, or a specific one does not exist.
    """
    policy = policy or DEFAULT_POLICY
    found = sorted(set(available))
    if not found:
        raise ConfigError(["no version directory: expected at least one named 1, 2, ..."])
    if policy.kind == "all":
        return found
    if policy.kind == "latest":
        return found[-policy.num_versions :]
    wanted = sorted(set(policy.versions))
    missing = [version for version in wanted if version not in found]
    if missing:
        raise ConfigError(
            [
                f"version_policy.specific: version {version} does not exist, "
                f"found {', '.join(map(str, found))}"
                for version in missing
            ]
        )
    if not wanted:
        raise ConfigError(["version_policy.specific.versions: expected at least one version"])
    return wanted
