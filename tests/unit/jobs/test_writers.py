"""Writing: what each format makes of the same outputs, and what it cannot hold."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from penstock.jobs.failures import JobError, PlanError
from penstock.jobs.sink import Sink
from penstock.jobs.storage import Storage
from penstock.jobs.writers import SUFFIXES, columns_of, make_writer, schema_faults

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int64()),
        ("p", pa.list_(pa.list_(pa.float32(), 2), 1)),
        ("raw", pa.binary()),
    ]
)
ROWS = [
    {"id": "a", "label": 1, "p": [[0.5, float("nan")]], "raw": "grüße".encode()},
    {"id": "b", "label": 2, "p": [[1.5, 2.5]], "raw": b"\xff\x00"},
]
BATCH = pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)


def written(format_name: str, path: Path, batches: list[Any], schema: Any = SCHEMA) -> Path:
    name = f"part{SUFFIXES[format_name]}"
    with Storage(str(path)).create(name) as sink:
        writer = make_writer(format_name, sink, schema)
        for batch in batches:
            writer.write(batch)
        writer.close()
    return path / name


def test_parquet_and_feather_hold_the_rows(tmp_path: Path) -> None:
    table = pq.read_table(written("parquet", tmp_path, [BATCH, BATCH]))
    assert table.schema.field("label").type == pa.int64()
    assert table["id"].to_pylist() == ["a", "b", "a", "b"]
    assert table["raw"].to_pylist()[1] == b"\xff\x00"
    assert feather.read_table(written("feather", tmp_path, [BATCH])).schema == SCHEMA


def test_csv_has_a_column_per_value(tmp_path: Path) -> None:
    text = written("csv", tmp_path, [BATCH]).read_text()
    assert text.splitlines() == [
        '"id","label","p_0","p_1","raw"',
        '"a",1,0.5,nan,"grüße"',
        '"b",2,1.5,2.5,"\\xff\x00"',
    ]


def test_json_lines_are_json(tmp_path: Path) -> None:
    lines = written("jsonl", tmp_path, [BATCH]).read_text().splitlines()
    assert json.loads(lines[0]) == {"id": "a", "label": 1, "p": [[0.5, "NaN"]], "raw": "grüße"}
    assert len(lines) == 2


def test_npz_and_npy_hold_arrays(tmp_path: Path) -> None:
    with np.load(written("npz", tmp_path, [BATCH, BATCH])) as arrays:
        assert arrays["p"].shape == (4, 1, 2)
        assert arrays["id"].tolist() == ["a", "b", "a", "b"]
        assert arrays["label"].dtype == np.int64
    alone = BATCH.select(["p"])
    assert np.load(written("npy", tmp_path, [alone], alone.schema)).shape == (2, 1, 2)


@pytest.mark.parametrize("format_name", ["parquet", "feather", "csv", "jsonl", "npz"])
def test_no_rows_make_a_file_with_the_columns(tmp_path: Path, format_name: str) -> None:
    path = written(format_name, tmp_path, [])
    if format_name == "parquet":
        assert pq.read_table(path).schema.names == SCHEMA.names
    elif format_name == "csv":
        assert path.read_text() == '"id","label","p_0","p_1","raw"\n'
    elif format_name == "npz":
        with np.load(path) as arrays:
            assert arrays["p"].shape == (0, 1, 2)
    else:
        assert path.exists()


def test_free_shapes_and_several_arrays_are_refused_where_they_do_not_fit() -> None:
    free = pa.schema([("a", pa.list_(pa.float32()))])
    for name in ("csv", "npy", "npz"):
        assert "rows of a fixed shape only" in schema_faults(name, free)[0]
    assert schema_faults("npy", SCHEMA)[0].startswith("npy holds one array")
    assert schema_faults("xml", SCHEMA)[0].startswith("no output format 'xml'")
    with pytest.raises(PlanError):
        make_writer("csv", Sink(io.BytesIO().write), free)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((3, 2), pa.list_(pa.float32(), 2)),
        ((3, 2), pa.list_(pa.float32())),
        ((3, 2, 4), pa.list_(pa.list_(pa.float32(), 4))),
        ((3, 2, 4), pa.list_(pa.list_(pa.float32()), 2)),
        ((3, 0), pa.list_(pa.float32())),
        ((3, 0), pa.list_(pa.float32(), 0)),
        ((0, 2), pa.list_(pa.float32(), 2)),
        ((0, 2, 2), pa.list_(pa.list_(pa.float32()))),
        ((3,), pa.float32()),
    ],
)
def test_arrays_become_columns_of_lists(shape: tuple[int, ...], kind: Any) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    column = columns_of(array, kind)
    column.validate(full=True)
    assert (column.type, column.to_pylist()) == (kind, array.tolist())


def test_bytes_become_a_binary_column() -> None:
    array = np.array([[b"a", b""], [b"\x00", b"d"]], object)
    assert columns_of(array, pa.list_(pa.binary(), 2)).to_pylist() == array.tolist()


@pytest.mark.parametrize("format_name", ["npy", "npz"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1 << 60, None], pa.int64()),
        ([[1, 2], [3, None]], pa.list_(pa.int64(), 2)),
        ([[1, 2], None], pa.list_(pa.int64(), 2)),
    ],
)
def test_nulls_that_numpy_cannot_hold_are_refused(
    tmp_path: Path, format_name: str, values: list[Any], kind: Any
) -> None:
    batch = pa.record_batch({"id": pa.array(values, kind)})
    with pytest.raises(JobError, match="column 'id' has nulls, which npy and npz cannot hold"):
        written(format_name, tmp_path, [batch], batch.schema)
