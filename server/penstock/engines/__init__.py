"""Engines that are compiled for a device ahead of time, and the names that they are kept under."""

from penstock.engines.key import EngineRecipe, Library, ShapeRange, Target, file_sha256

__all__ = ["EngineRecipe", "Library", "ShapeRange", "Target", "file_sha256"]
