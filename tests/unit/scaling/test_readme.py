"""What scaling/README.md tells operators is so."""

from pathlib import Path

from penstock.scaling.config import ScalerConfig
from penstock.scaling.triggers import METRICS
from penstock.setting import fields_of

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "server" / "penstock" / "scaling" / "README.md").read_text()


def test_every_flag_of_the_scaler_is_in_its_table() -> None:
    for field in fields_of(ScalerConfig):
        (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{field.flag}` |")]
        assert field.setting.help in row, field.flag


def test_every_metric_is_told_of() -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith("| `metric` |")]
    assert [name for name in METRICS if f"`{name}`" not in row] == []


def test_command_that_is_shown_is_one() -> None:
    (line,) = [each for each in TEXT.splitlines() if each.startswith("penstock scaler --host")]
    flags = line.split()[2::2]
    assert set(flags) <= {field.flag for field in fields_of(ScalerConfig)}
