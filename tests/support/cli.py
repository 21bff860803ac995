"""The command line as a process."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


async def penstock(*arguments: str) -> Finished:
    """Runs `penstock` with these arguments to its end; it never ends in a traceback."""
    async with started(*arguments) as process:
        return await finished(process)


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts `penstock` with these arguments; kills it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def finished(process: asyncio.subprocess.Process) -> Finished:
    """Waits for the end of a process of `started`."""
    out, err = await process.communicate()
    end = Finished(process.returncode or 0, out.decode(), err.decode())
    assert "Traceback" not in end.err, end.err
    return end
