"""`penstock demo` from training to a clean stop."""

import asyncio
import re
import signal
from pathlib import Path

import pytest
from tests.support.cli import finished, penstock, started

pytestmark = [pytest.mark.any_transport, pytest.mark.lengthy]


def told_of_audit(out: str) -> None:
    """The command that anybody may give, and the table that it prints."""
    command, columns, _, row = out.partition("penstock audit ")[2].splitlines()[:4]
    assert re.fullmatch(r"127\.0\.0\.1:\d+ --environment demo", command)
    assert columns.split() == "version server has store has serves in verdict".split()
    held, pushed = re.findall(r"sha256:\w{12}", row)
    assert held == pushed
    assert row.split() == ["digits@1", held, pushed, "demo", "ok"]


async def test_demo_is_right_about_every_image(tmp_path: Path) -> None:
    result = await penstock("demo", "--seconds=0.5", "--in-flight=16", f"--repository={tmp_path}")
    assert (result.code, result.err) == (0, "")
    accuracy = re.search(r"accuracy +(\S+) on 450 held-out images", result.out)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.96
    agreed = re.search(r"agreement +(\d+) of (\d+) answers", result.out)
    assert agreed is not None
    assert agreed[1] == agreed[2]
    assert "rows per batch" in result.out
    assert "why batches closed: " in result.out
    assert "the server stopped cleanly" in result.out
    assert re.search(r"pushed +digits@1, sha256:", result.out)
    assert "deployed    digits@1 to environment 'demo'" in result.out
    told_of_audit(result.out)
    checked = await penstock("check", str(tmp_path))
    assert checked.code == 0
    assert "digits" in checked.out


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="int"),
        pytest.param(signal.SIGTERM, 143, id="term", marks=pytest.mark.slow),
    ],
)
async def test_demo_that_is_stopped_leaves_no_server(number: signal.Signals, code: int) -> None:
    async with started("demo", "--seconds=600") as process:
        assert process.stdout is not None
        line = b""
        while not line.startswith(b"serving"):
            line = await process.stdout.readline()
            assert line, "it ended before it served"
        process.send_signal(number)
        end = await finished(process)
    assert (end.code, end.err.strip()) == (code, "")
    port = re.search(rb"at 127\.0\.0\.1:(\d+),", line)
    assert port is not None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(port[1]))


@pytest.mark.slow
async def test_demo_leaves_a_version_in_the_store_that_is_named(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    end = await penstock("demo", "--seconds", "0.5", "--store", store)
    assert end.code == 0, end.err
    told_of_audit(end.out)
    why = await penstock("why", "digits", "--store", store)
    assert "loaded exactly these bytes" in why.out
