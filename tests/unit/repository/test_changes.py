"""What two polls mean, as a table."""

from pathlib import Path

import pytest

from penstock.repository.changes import Changes, find_changes, find_vanished
from penstock.repository.snapshot import Entry, ModelSnapshot, Root, Snapshot

A = ModelSnapshot((Entry("0:m/1/model.onnx", "file", size=1, mtime_ns=5, inode=7),))
B = ModelSnapshot((Entry("0:m/1/model.onnx", "file", size=2, mtime_ns=6, inode=7),))
BAD = ModelSnapshot(fault="it has more than 3 files and directories")
NOTHING = Changes()
LOAD = Changes(load=("m",))
REFUSE = Changes(refuse=("m",))
UNLOAD = Changes(unload=("m",))
GONE = "gone"
NEVER = "never"

State = ModelSnapshot | str | None


def snapshot(model: State) -> Snapshot:
    return Snapshot({"m": model} if isinstance(model, ModelSnapshot) else {})


@pytest.mark.parametrize(
    ("previous", "current", "tried", "expected"),
    [
        pytest.param(GONE, A, NEVER, NOTHING, id="new: wait for a second look"),
        pytest.param(A, A, NEVER, LOAD, id="new and stable"),
        pytest.param(A, B, NEVER, NOTHING, id="new and being written"),
        pytest.param(A, A, A, NOTHING, id="loaded, or failed, and unchanged"),
        pytest.param(A, B, A, NOTHING, id="changed: wait for a second look"),
        pytest.param(B, B, A, LOAD, id="changed and stable"),
        pytest.param(B, A, A, NOTHING, id="changed back before it was loaded"),
        pytest.param(A, A, None, LOAD, id="to be tried again"),
        pytest.param(A, B, None, NOTHING, id="to be tried again, and being written"),
        pytest.param(A, GONE, A, NOTHING, id="missed once"),
        pytest.param(GONE, GONE, A, UNLOAD, id="missed twice"),
        pytest.param(GONE, GONE, None, UNLOAD, id="missed twice, never loaded well"),
        pytest.param(GONE, GONE, NEVER, NOTHING, id="never there"),
        pytest.param(GONE, A, A, NOTHING, id="missed once and back"),
        pytest.param(GONE, B, A, NOTHING, id="missed once and replaced"),
        pytest.param(BAD, BAD, A, REFUSE, id="cannot be told any more"),
        pytest.param(BAD, BAD, NEVER, REFUSE, id="new and cannot be told"),
        pytest.param(BAD, BAD, BAD, NOTHING, id="refused before"),
        pytest.param(A, BAD, A, NOTHING, id="cannot be told in one look"),
        pytest.param(A, A, BAD, LOAD, id="can be told again"),
    ],
)
def test_one_model(previous: State, current: State, tried: State, expected: Changes) -> None:
    known = {"m": tried if isinstance(tried, ModelSnapshot) else None} if tried != NEVER else {}
    assert find_changes(snapshot(previous), snapshot(current), known) == expected
    assert find_changes(snapshot(previous), snapshot(current), known, busy={"m"}) == NOTHING


def test_models_do_not_matter_to_each_other() -> None:
    previous = Snapshot({"new": A, "same": A, "changed": B, "odd": BAD})
    current = Snapshot({"new": A, "same": A, "changed": B, "odd": BAD, "first": A})
    tried = {"same": A, "changed": A, "gone": A}
    assert find_changes(previous, current, tried) == Changes(
        load=("changed", "new"), refuse=("odd",), unload=("gone",)
    )


@pytest.mark.parametrize(
    ("count", "identity", "later", "is_vanished"),
    [
        pytest.param(2, 1, (0, 1), False, id="emptied by hand"),
        pytest.param(2, 1, (0, 9), True, id="another, empty directory: the mount is gone"),
        pytest.param(2, 1, (3, 9), False, id="replaced as a whole"),
        pytest.param(0, 1, (0, 9), False, id="was empty before"),
    ],
)
def test_repository_whose_mount_is_gone(
    count: int, identity: int, later: tuple[int, int], is_vanished: bool
) -> None:
    before = Snapshot(roots=(Root(Path("r"), (1, identity), count),))
    after = Snapshot(roots=(Root(Path("r"), (1, later[1]), later[0]),))
    assert [root.path for root in find_vanished(before, after)] == [Path("r")] * is_vanished


def test_first_look_finds_nothing_vanished() -> None:
    assert find_vanished(Snapshot(), Snapshot(roots=(Root(Path("r"), (1, 1), 0),))) == []
