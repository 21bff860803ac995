"""An engine's key changes with everything that the engine depends on, and with nothing else."""

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from penstock.engines import EngineRecipe, Library, ShapeRange, Target, file_sha256
from penstock.errors import ConfigError

A, B = "a" * 64, "b" * 64
BATCHES = ShapeRange((1, 3), (8, 3), (32, 3))
RECIPE = EngineRecipe(
    model_sha256=A,
    library=Library("tensorrt", "11.1.0.106"),
    target=Target((9, 0), 132, "NVIDIA H200", driver_major=580),
    external_sha256={"weights.bin": A, "more.bin": B},
    profiles=({"x": BATCHES, "y": BATCHES},),
    builder_flags=frozenset({"TF32", "STRIP_PLAN"}),
    workspace_bytes=1 << 30,
)
OTHERS = [
    replace(RECIPE, model_sha256=B),
    replace(RECIPE, library=Library("tensorrt_rtx", "11.1.0.106")),
    replace(RECIPE, library=Library("tensorrt", "11.1.0.107")),
    replace(RECIPE, library=Library("tensorrt", "11.1.0.106.post1")),
    replace(RECIPE, target=None),
    replace(RECIPE, target=Target((9, 1), 132, "NVIDIA H200", 580)),
    replace(RECIPE, target=Target((9, 0), 16, "NVIDIA H200", 580)),
    replace(RECIPE, target=Target((9, 0), 132, "NVIDIA H100", 580)),
    replace(RECIPE, target=Target((9, 0), 132, "NVIDIA H200", 581)),
    replace(RECIPE, external_sha256={"weights.bin": B, "more.bin": A}),
    replace(RECIPE, external_sha256={"weights.bin": A}),
    replace(RECIPE, profiles=()),
    replace(RECIPE, profiles=RECIPE.profiles * 2),
    replace(RECIPE, profiles=({"x": ShapeRange((1, 3), (8, 3), (33, 3)), "y": BATCHES},)),
    replace(RECIPE, profiles=({"x": ShapeRange((1, 3), (9, 3), (32, 3)), "y": BATCHES},)),
    replace(RECIPE, profiles=({"x": ShapeRange((2, 3), (8, 3), (32, 3)), "y": BATCHES},)),
    replace(RECIPE, profiles=({"x": BATCHES, "z": BATCHES},)),
    replace(RECIPE, builder_flags=frozenset({"TF32"})),
    replace(RECIPE, workspace_bytes=1 << 31),
]


def test_key_is_a_digest_of_the_canonical_recipe() -> None:
    assert RECIPE.key() == hashlib.sha256(RECIPE.canonical().encode()).hexdigest()


def test_key_stays_from_release_to_release() -> None:
    # Who changes this on purpose raises KEY_VERSION.
    assert RECIPE.key() == "ea53977771bf354b5b92d69fbbc7481d87cef5b5f8ab1e0e1e80be8c08e80dfd"


def test_any_difference_gives_another_key() -> None:
    keys = {recipe.key() for recipe in [RECIPE, *OTHERS]}
    assert len(keys) == 1 + len(OTHERS)


def test_every_field_is_in_the_key_and_tried_here() -> None:
    names = {f.name for f in fields(EngineRecipe)}
    assert set(json.loads(RECIPE.canonical())) == names | {"key_version"}
    tried = {n for n in names for o in OTHERS if getattr(o, n) != getattr(RECIPE, n)}
    assert tried == names


def asked(**changes: Any) -> str:
    """The key of a request; `buckets`, `ranges` and fields of the recipe may be others."""
    buckets = changes.pop("buckets", (1, 8))
    ranges = changes.pop("ranges", {"x": BATCHES})
    return replace(RECIPE, **changes).asked_key(buckets, ranges)


def test_key_of_a_request_stays_from_release_to_release() -> None:
    # Who changes this on purpose raises KEY_VERSION or ASKED_VERSION.
    assert asked() == "09998ff91fcba0f70108a97fc920c64dd50ed17401f9b8b77ce857078f7c2a66"


def test_key_of_a_request_changes_with_all_but_the_profiles() -> None:
    others = [each for each in OTHERS if each.profiles == RECIPE.profiles]
    keys = {each.asked_key((1, 8), {"x": BATCHES}) for each in [RECIPE, *others]}
    keys |= {asked(buckets=(8,)), asked(ranges={}), asked(ranges={"y": BATCHES})}
    assert len(keys) == 1 + len(others) + 3
    assert RECIPE.key() not in keys
    assert asked(profiles=()) == asked()


def test_request_that_cannot_be_has_no_key() -> None:
    with pytest.raises(ConfigError, match="expected it in full"):
        asked(library=Library("tensorrt", "11.1"))
    with pytest.raises(ConfigError, match="shape of input 'x': expected least <= likely"):
        asked(ranges={"x": ShapeRange((2,), (1,), (3,))})


@pytest.mark.parametrize("version", ["10.14.1.48.post1", "10.6.0.post1", "10.6.0", "11.1.0.106"])
def test_version_is_one_that_packages_have(version: str) -> None:
    assert replace(RECIPE, library=Library("tensorrt", version)).faults() == []


def test_order_of_sets_and_mappings_does_not_matter() -> None:
    same = replace(
        RECIPE,
        external_sha256={"more.bin": B, "weights.bin": A},
        profiles=({"y": BATCHES, "x": BATCHES},),
        builder_flags=frozenset({"STRIP_PLAN", "TF32"}),
    )
    assert same.key() == RECIPE.key()


def test_order_of_profiles_matters() -> None:
    one, two = {"x": BATCHES}, {"x": ShapeRange((1, 3), (1, 3), (1, 3))}
    keys = {replace(RECIPE, profiles=p).key() for p in [(one, two), (two, one)]}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        (replace(RECIPE, model_sha256="A" * 64), "digest of the model: expected 64 hexadecimal"),
        (replace(RECIPE, external_sha256={"w": "a"}), "external data 'w': expected 64"),
        (replace(RECIPE, library=Library("tensorrt", "11.1")), "expected it in full"),
        (replace(RECIPE, library=Library("tensorrt", "11.1.post1")), "expected it in full"),
        (replace(RECIPE, library=Library("tensorrt", "11.1.0.1.post")), "expected it in full"),
        (replace(RECIPE, workspace_bytes=-1), "got -1"),
        (replace(RECIPE, profiles=({"x": ShapeRange((2,), (1,), (3,))},)), "profile 0, input 'x'"),
        (replace(RECIPE, profiles=({"x": ShapeRange((1,), (1,), (1, 2))},)), "(1,), (1,), (1, 2)"),
        (replace(RECIPE, profiles=({"x": BATCHES}, {"z": BATCHES})), "profile 1: expected the inp"),
    ],
)
def test_recipe_that_cannot_be_has_no_key(recipe: EngineRecipe, fault: str) -> None:
    assert len(recipe.faults()) == 1
    assert fault in recipe.faults()[0]
    with pytest.raises(ConfigError) as raised:
        recipe.key()
    assert fault in str(raised.value)


def test_file_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "a") == digest
