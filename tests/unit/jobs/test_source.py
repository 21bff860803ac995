"""Reading: every format gives the same rows, files follow each other, faults name their file."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from penstock.jobs.failures import JobError, PlanError
from penstock.jobs.source import ReadOptions, Source, open_source

ROWS = 25
VALUES = np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2)
TABLE = pa.table({"X": VALUES.tolist(), "größe": [f"n{i}" for i in range(ROWS)]})


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in TABLE.to_pylist()))


def write_npz(path: Path) -> None:
    np.savez(path, X=VALUES, größe=np.array(TABLE["größe"].to_pylist()))


WRITE: dict[str, Callable[[Path], Any]] = {
    "a.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=7),
    "a.feather": lambda path: feather.write_feather(TABLE, str(path), chunksize=7),
    "a.jsonl": write_jsonl,
    "a.npz": write_npz,
}
FLOATS = pa.list_(pa.float32())


def read(source: Source, *, wanted: Callable[[int, int], bool] = lambda a, b: True) -> Any:
    names = [column.name for column in source.columns]
    blocks = list(source.blocks(names, lambda start, stop: not wanted(start, stop), 4))
    firsts = [block.first for block in blocks]
    assert firsts == sorted(firsts)
    return [(block.first, row) for block in blocks for row in block.batch.to_pylist()]


def opened(path: Path | str, **types: Any) -> Source:
    return open_source(str(path), "", ReadOptions(types=types, block_rows=4))


@pytest.mark.parametrize("name", list(WRITE))
def test_every_format_gives_the_rows_in_order(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path / name)
    source = opened(tmp_path / name, X=FLOATS)
    rows = [row for _, row in read(source)]
    assert [row["X"] for row in rows] == VALUES.tolist()
    assert [row["größe"] for row in rows] == TABLE["größe"].to_pylist()


@pytest.mark.parametrize("name", list(WRITE))
def test_files_of_a_directory_follow_each_other_by_name(tmp_path: Path, name: str) -> None:
    for prefix in ("c", "b"):
        WRITE[name](tmp_path / name.replace("a", prefix, 1))
    (tmp_path / "_hidden.txt").write_text("")
    source = opened(tmp_path, X=FLOATS)
    rows = read(source)
    assert len(rows) == 2 * ROWS
    assert max(first for first, _ in rows) >= ROWS
    later = read(source, wanted=lambda start, stop: stop > ROWS + 20)
    assert later[-1][1]["größe"] == "n24"


def test_what_nobody_wants_is_skipped_where_the_format_knows(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=5)
    rows = read(opened(tmp_path / "a.parquet"), wanted=lambda start, stop: start <= 12 < stop)
    assert [row["größe"] for _, row in rows] == ["n10", "n11", "n12", "n13", "n14"]


def test_csv_is_read_as_text_with_line_breaks_in_values(tmp_path: Path) -> None:
    table = pa.table({"id": ["007", 'a,"b"\nc'], "x": [1.5, 2.5]})
    csv.write_csv(table, str(tmp_path / "a.csv"))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    for name in ("a.csv", "a.csv.gz"):
        rows = [row for _, row in read(opened(tmp_path / name))]
        assert rows == [{"id": "007", "x": "1.5"}, {"id": 'a,"b"\nc', "x": "2.5"}]


def test_npy_is_the_only_input_and_keeps_its_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(VALUES.astype(">f4")))
    source = open_source(str(tmp_path / "a.npy"), "", ReadOptions(block_rows=4, sole_input="X"))
    assert [row["X"] for _, row in read(source)] == VALUES.tolist()


def test_lines_that_cannot_be_read_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = ['{"X": [1, 2]}', "{oops", '{"X": "text"}', "", '{"X": [3, 4], "more": 1}', "[1]"]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, ""]))
    source = opened(tmp_path / "a.jsonl", X=FLOATS)
    blocks = list(source.blocks(["X"], lambda start, stop: False, 100))
    (block,) = blocks
    assert block.count == 5
    assert block.rows.tolist() == [0, 3]
    assert block.batch.to_pylist() == [{"X": [1, 2]}, {"X": [3, 4]}]
    assert [each.row for each in block.unreadable] == [1, 2, 4]
    assert all("cannot be read" in each.reason for each in block.unreadable)


def test_files_with_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"X": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"X": [1], "Z": [2]}), tmp_path / "b.parquet")
    with pytest.raises(PlanError, match=r"b.parquet has other columns than .*a.parquet: also 'Z'"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"a.{suffix}", b"") for suffix in ("parquet", "feather", "npy", "npz")),
        ("a.parquet", b"PAR1 and nothing more"),
        ("a.feather", b"ARROW1 no"),
        ("a.npy", b"\x93NUMPY\x01"),
        ("a.npz", b"PK\x03\x04 no"),
        ("a.csv", b""),
        ("a.csv", b"a,a\n1,2\n"),
        ("a.jsonl", b"\xff\xfe\n\x00"),
    ],
)
def test_file_that_is_no_such_file_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlanError, match=f"cannot read .*{name} as "):
        opened(tmp_path / name)


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(PlanError, match=r"a.parquet as parquet: .*"):
        opened(path)


def test_parquet_with_damaged_pages_fails_naming_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[30:200] = bytes(170)
    path.write_bytes(content)
    source = opened(path)
    with pytest.raises(JobError, match="cannot read .*a.parquet"):
        read(source)


def test_row_of_csv_with_too_few_cells_fails_naming_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(JobError, match=r"a.csv.*Expected 2 columns, got 1"):
        read(opened(tmp_path / "a.csv"))


def test_formats_are_not_mixed_and_unknown_ones_are_told(tmp_path: Path) -> None:
    WRITE["a.parquet"](tmp_path / "a.parquet")
    write_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(PlanError, match="several formats: jsonl, parquet"):
        opened(tmp_path)
    (tmp_path / "x.dat").write_text("")
    with pytest.raises(PlanError, match="no format is known for .*x.dat: say --input-format"):
        opened(tmp_path / "x.dat")
    with pytest.raises(PlanError, match="no file found at"):
        opened(tmp_path / "nothing*")
    with pytest.raises(PlanError, match="no input format 'xml'"):
        open_source(str(tmp_path), "xml", ReadOptions())


@pytest.mark.parametrize("uri", ["nosuch://bucket/key", "hdfs2://x"])
def test_scheme_that_nothing_serves_is_told(uri: str) -> None:
    with pytest.raises(PlanError, match=f"cannot open {uri}"):
        opened(uri)
