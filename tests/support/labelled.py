"""The example of README.md and server/README.md: digits to label, and whether they are."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.commands import _demo_model

ROWS = 1000


class Digits:
    """models/ and images.parquet in a folder, for jobs that make labels/ in 5 parts of 200 rows."""

    def __init__(self, folder: Path) -> None:
        digits = _demo_model.train()
        _demo_model.write_repository(folder / "models", digits.onnx, 0)
        places = [row % len(digits.images) for row in range(ROWS)]
        images = [digits.images[place] for place in places]
        pq.write_table(pa.table({"X": images}), folder / "images.parquet")
        self._folder = folder
        self._labels = [int(digits.labels[place]) for place in places]

    def check(self) -> None:
        """Fails unless every row was labelled as scikit-learn's own model labels it, in order."""
        folder = self._folder / "labels"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (manifest["counts"]["rows_out"], len(manifest["outputs"])) == (ROWS, 5)
        tables = [pq.read_table(part) for part in sorted(folder.glob("part-*"))]
        assert pa.concat_tables(tables)["label"].to_pylist() == self._labels
