"""Engines that are compiled for a device ahead of time: built, kept, named by what made them."""

from penstock.engines.at_load import EngineCache, EngineCacheSettings
from penstock.engines.build import FLAVOURS, BuildRequest, Built, build_engine
from penstock.engines.kept import EngineError, operations_of, verify_engine
from penstock.engines.key import EngineRecipe, Library, ShapeRange, Target, file_sha256
from penstock.engines.profiles import batching_of, default_buckets, parse_range
from penstock.engines.seen import SeenDevices
from penstock.engines.visible import VISIBLE_DEVICES, find_visible

__all__ = [
    "FLAVOURS",
    "VISIBLE_DEVICES",
    "BuildRequest",
    "Built",
    "EngineCache",
    "EngineCacheSettings",
    "EngineError",
    "EngineRecipe",
    "Library",
    "SeenDevices",
    "ShapeRange",
    "Target",
    "batching_of",
    "build_engine",
    "default_buckets",
    "file_sha256",
    "find_visible",
    "operations_of",
    "parse_range",
    "verify_engine",
]
