"""`penstock batch --store`: which version of the model store a job runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import typer

from penstock.commands._store import VARIABLE
from penstock.config import ServerConfig

if TYPE_CHECKING:
    from penstock.batch import StoredModel
    from penstock.commands._flags import Texts
    from penstock.jobs.on_ray import MakeEngine
    from penstock.jobs.planning import JobOptions

__all__ = ["STORE_SETTINGS", "store_engine", "store_url"]

STORE_SETTINGS = ("store_cache", "store_cache_bytes", "store_build_environments")


def store_url(given: str, has_repository: bool) -> str:
    """The store that is meant; "" = none, the model is in a repository.

    Args:
        given: --store.
        has_repository: a repository is set, by flag or variable: only --store goes before it.
    """
    url = given or ("" if has_repository else os.environ.get(VARIABLE, ""))
    # Ray's workers are somewhere else.
    return url if "://" in url or not url else os.path.abspath(url)


def store_engine(
    url: str, options: JobOptions, settings: Texts, timeout_s: float
) -> tuple[StoredModel, MakeEngine]:
    """The version that a job runs, and what makes its engine.

    Args:
        url: of the store.
        options: of the job; its model is NAME, NAME@3 or NAME@alias.
        settings: of the server, as texts.
        timeout_s: for each request.

    Blocking: asks the store, and looks at the outputs.

    Raises:
        JobError: there is no such version, it may not be used, or the store cannot be reached.
        ConfigError: a setting is wrong.
    """
    from penstock.batch import choose_stored, stored_engine
    from penstock.jobs.ledger import Ledger
    from penstock.jobs.storage import Storage

    if options.version:
        name = options.model.partition("@")[0]
        raise typer.BadParameter(f"--store and --model-version: say {name}@{options.version}")
    begun: Mapping[str, object] | None = None
    if options.resume and not options.overwrite:
        begun = Ledger(Storage(options.output_uri)).unfinished_model()
    stored = choose_stored(url, options.model, begun)
    config = _config(settings)
    return stored, partial(stored_engine, config, stored, timeout_s)


def _config(settings: Texts) -> ServerConfig:
    """The settings with the cache as the repository: that is where the model will be."""
    from penstock.deployed import cache_directory

    cache = settings.get("store_cache", "")
    if cache:
        settings = {**settings, "store_cache": os.path.abspath(str(cache))}
    draft = ServerConfig.from_text({**settings, "model_repository": [os.path.curdir]})
    place = str(cache_directory(draft))
    return ServerConfig.from_text({**settings, "model_repository": [place]})
