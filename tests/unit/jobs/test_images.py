"""A directory of images as rows: layouts by shape, sizes, scales, and files that are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.fake_batch import FakeEngine, info, rejects, run

from penstock.jobs.failures import PlanError
from penstock.jobs.model import WireTensor

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


class PixelEngine(FakeEngine):
    """Y = the sum of each image's values; keeps what came."""

    def __init__(self, datatype: str, shape: tuple[int, ...]) -> None:
        super().__init__(info(inputs=[WireTensor("X", datatype, (-1, *shape))]))
        self.seen: list[Any] = []

    async def infer(self, model: Any, inputs: Any) -> Any:
        values = inputs[0].array()
        self.seen.append(values)
        sums = values.reshape(len(values), -1).sum(axis=1, dtype=np.float64)
        return {"Y": sums.astype(np.float32)[:, None]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of 4 x 6, red, green and blue in their corners, one of them of another size."""
    path = tmp_path / "images"
    path.mkdir()
    for at, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        size = (12, 8) if at == 2 else (6, 4)
        Image.new("RGB", size, color).save(path / f"{at}.png")
    return path


@pytest.mark.parametrize(
    ("shape", "value"), [((4, 6, 3), 255 * 24), ((3, 4, 6), 255 * 24), ((4, 6, 1), None)]
)
async def test_images_become_rows_by_the_shape_of_the_input(
    folder: Path, tmp_path: Path, shape: tuple[int, ...], value: float | None
) -> None:
    engine = PixelEngine("FP32", shape)
    await run(engine, folder, tmp_path / "out", keep=("path",))
    table = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    assert [Path(path).name for path in table["path"].to_pylist()] == ["0.png", "1.png", "2.png"]
    assert [len(values) for values in engine.seen] == [3], "one request for all"
    assert engine.seen[0].shape == (3, *shape)
    if value is not None:
        assert table["Y"].to_pylist() == [value] * 3
    if shape == (3, 4, 6):
        assert engine.seen[0][1, :, 0, 0].tolist() == [0, 255, 0]


async def test_pixels_are_scaled(folder: Path, tmp_path: Path) -> None:
    engine = PixelEngine("FP32", (4, 6, 3))
    await run(engine, folder, tmp_path / "out", scale=1 / 255)
    assert engine.seen[0].max() == 1.0


async def test_file_that_is_no_image_is_rejected_and_the_rest_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "1.png").write_bytes(b"\x89PNG no")
    result = await run(PixelEngine("UINT8", (4, 6, 3)), folder, tmp_path / "out")
    assert (result.rows_out, result.rows_rejected) == (2, 1)
    (rejected,) = rejects(tmp_path / "out")
    assert (rejected["row"], "1.png cannot be read" in rejected["reason"]) == (1, True)


@pytest.mark.parametrize(
    ("datatype", "shape", "options", "fragment"),
    [
        ("FP32", (7,), {}, "a square number"),
        ("BYTES", (4, 6, 3), {}, "expected numbers of a shape"),
        ("UINT8", (4, 6, 3), {"scale": 0.5}, "pixels cannot be scaled"),
        ("INT8", (4, 6, 3), {}, "takes INT8, which cannot hold pixels of 0 to 255"),
    ],
)
async def test_model_that_takes_no_images_is_told(
    folder: Path,
    tmp_path: Path,
    datatype: str,
    shape: tuple[int, ...],
    options: dict[str, Any],
    fragment: str,
) -> None:
    with pytest.raises(PlanError, match=fragment):
        await run(PixelEngine(datatype, shape), folder, tmp_path / "out", **options)


async def test_csv_with_a_column_per_value_makes_rows(tmp_path: Path) -> None:
    lines = ["id,p0,p1,p2,p3", "007,1,2,3,4", "x,5,6,oops,8", "y,9,10,11,12"]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    options: dict[str, Any] = {"maps": {"X": ("p*",)}, "key": "id"}
    await run(FakeEngine(), tmp_path / "in.csv", tmp_path / "out", **options)
    text = (tmp_path / "out" / "part-00000.csv").read_text()
    assert text == '"id","Y"\n"007",2\n"y",18\n'
    (file,) = (tmp_path / "out" / "rejects").iterdir()
    assert "'oops' is no number of FP32" in file.read_text()
