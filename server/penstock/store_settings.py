"""The settings of serving from the model store; `ServerConfig` is made of these, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.access_settings import AccessSettings
from penstock.setting import setting

__all__ = ["StoreSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings(AccessSettings):
    """What to serve of a store. `store_faults` says what does not fit together."""

    store: str = setting(
        "",
        "Model store: a directory, sqlite:///FILE or postgresql://...; served with --environment.",
        group="Model store",
    )
    environment: str = setting(
        "",
        "Serve what is deployed to this environment of --store, in place of a repository.",
        group="Model store",
    )
    store_poll_secs: float = setting(
        0.5,
        "Time between two looks at the environment.",
        unit="s",
        minimum=0.02,
        maximum=3600,
        group="Model store",
    )
    store_cache: str = setting(
        "", "Directory of fetched artifacts; empty = in the user's cache.", group="Model store"
    )
    store_cache_bytes: int = setting(
        64 << 30,
        "Greatest size of --store-cache; what was not used for longest goes first; 0 = unlimited.",
        minimum=0,
        maximum=1 << 50,
        unit="bytes",
        group="Model store",
    )
    store_build_environments: bool = setting(
        False,
        "Build the environment of a deployed Python model's locked requirements, which downloads.",
        group="Model store",
    )

    def store_faults(self, repositories: Sequence[Path], control_mode: str) -> Iterator[str]:
        """What does not fit together."""
        if not self.environment:
            if self.store and not repositories:
                yield "--environment: which one of --store is to be served?"
            return
        if not self.store:
            yield "--environment: needs --store"
        if repositories:
            yield "--environment: not together with --model-repository"
        if control_mode != "none":
            yield "--environment: not together with --model-control-mode"
