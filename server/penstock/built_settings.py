"""The settings of what is built for models, and kept; `ServerConfig` is made of these, too."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.setting import setting

__all__ = ["BuiltSettings"]


@dataclass(frozen=True, kw_only=True)
class BuiltSettings:
    """Where environments and engines of models are kept."""

    python_environments: str = setting(
        "",
        "Directory of Python models' environments; empty = in the user's cache.",
        group="Models",
    )
    engine_cache: str = setting(
        "",
        "Directory of TensorRT plans that are built of ONNX; empty = in the user's cache.",
        group="Models",
    )
    engine_cache_bytes: int = setting(
        64 << 30,
        "Greatest size of the plans in --engine-cache; what was not used for longest goes first,"
        " what is in use stays; 0 = unlimited.",
        minimum=0,
        maximum=1 << 50,
        unit="bytes",
        group="Models",
    )
    engine_build_timeout_secs: float = setting(
        3600.0,
        "Time for a load to have its TensorRT plan built; penstock build-engine has no limit.",
        minimum=1,
        maximum=7 * 86400,
        unit="s",
        group="Models",
    )
