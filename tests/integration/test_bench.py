"""Benches must go on running; no figure of theirs is judged here."""

import asyncio
import json
import sys
from pathlib import Path

import compare
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.any_transport]


async def test_revisions_can_be_compared() -> None:
    program = compare.ROOT / "build/release/bench/micro/engine_bench"
    pattern = "BM_(Request|Batcher)"
    ratios = await asyncio.to_thread(compare.compare, program, program, 2, pattern, 0.01)
    assert len(ratios) == 4
    assert all(len(values) == 2 and min(values) > 0 for values in ratios.values())


async def test_peer_goes_through_end_to_end_and_leaves_no_process(tmp_path: Path) -> None:
    before = {each.pid for each in psutil.process_iter()}
    output = tmp_path / "results.json"
    flags = ["--only", "penstock", "mosec", "--works", "digits", "--rounds", "1"]
    flags += ["--seconds", "0.05", "--rates", "50", "--output", str(output)]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "bench.peers", *flags], cwd=compare.ROOT
    )
    assert await process.wait() == 0
    results = json.loads(output.read_text())
    assert results["failures"] == [] and results["skipped"] == {}
    assert {(each["peer"], each["route"]) for each in results["points"]} == {
        ("penstock", "gRPC"),
        ("penstock", "HTTP"),
        ("mosec", "HTTP"),
    }
    assert all(each.get("failed", 0) == 0 for each in results["points"])
    assert "| mosec | HTTP |" in output.with_suffix(".md").read_text()
    assert output.with_suffix(".svg").read_text().startswith("<svg")
    left = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before]
    assert not [each for each in left if "mosec_model.py" in " ".join(each.info["cmdline"] or [])]
