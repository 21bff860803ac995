"""Engines that are compiled for a device ahead of time: built, kept, named by what made them."""

from penstock.engines.at_load import EngineCache, EngineCacheSettings
from penstock.engines.build import FLAVOURS, BuildRequest, Built, build_engine
from penstock.engines.kept import EngineError, operations_of, verify_engine
from penstock.engines.key import EngineRecipe, Library, ShapeRange, Target, file_sha256
from penstock.engines.profiles import default_buckets, parse_range

__all__ = [
    "FLAVOURS",
    "BuildRequest",
    "Built",
    "EngineCache",
    "EngineCacheSettings",
    "EngineError",
    "EngineRecipe",
    "Library",
    "ShapeRange",
    "Target",
    "build_engine",
    "default_buckets",
    "file_sha256",
    "operations_of",
    "parse_range",
    "verify_engine",
]
