"""The command line as a process."""

import asyncio
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


async def penstock(*arguments: str) -> Finished:
    """Runs `penstock` with these arguments to its end; it never ends in a traceback."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    finished = Finished(process.returncode or 0, out.decode(), err.decode())
    assert "Traceback" not in finished.err, finished.err
    return finished
