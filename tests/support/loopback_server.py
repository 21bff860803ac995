"""An asyncio server on a free port of loopback, of which nothing is left at its end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["Handle", "loopback_server"]

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def loopback_server(handle: Handle) -> AsyncIterator[asyncio.Server]:
    """Has each connection handled, then closes it.

    A client that goes ends its handler without an error. Handlers that are not done when the
    context ends are cancelled, and their connections closed: else their loop ends before them, and
    a later test is told of an open socket.
    """
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        handlers.add(this)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await handle(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            handlers.discard(this)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield server
        finally:
            server.close()
            for each in list(handlers):
                each.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
