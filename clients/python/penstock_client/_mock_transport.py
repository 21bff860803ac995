"""Transports over functions: what tests of callers use in place of a server."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any

from google.protobuf.message import Message

from penstock_client._transport import Call


class MockTransport:
    """`Transport` over functions, to test without a socket code that uses a `Client`.

    Args:
        unary: Takes the call and the request message; returns the answer or raises RpcError.
        stream: Takes the call and the request messages; returns the answers.
    """

    def __init__(
        self,
        unary: Callable[[Call, Any], Message],
        stream: Callable[[Call, Iterator[Any]], Iterable[Message]] | None = None,
    ) -> None:
        """See the class."""
        self._unary = unary
        self._stream = stream
        self.is_closed = False

    def unary(self, call: Call, request: Message) -> Message:
        """See `Transport`."""
        return self._unary(call, request)

    def stream(self, call: Call, requests: Iterator[Message]) -> Generator[Message, None, None]:
        """See `Transport`."""
        if self._stream is None:
            raise NotImplementedError("this MockTransport was given no stream function")
        yield from self._stream(call, requests)

    def close(self) -> None:
        """See `Transport`."""
        self.is_closed = True


class AsyncMockTransport:
    """`AsyncTransport` over functions, to test without a socket code that uses an `AsyncClient`.

    Args:
        unary: Takes the call and the request message; awaited for the answer, or raises RpcError.
        stream: Takes the call and the request messages; iterated for the answers.
    """

    def __init__(
        self,
        unary: Callable[[Call, Any], Awaitable[Message]],
        stream: Callable[[Call, AsyncIterator[Any]], AsyncIterator[Message]] | None = None,
    ) -> None:
        """See the class."""
        self._unary = unary
        self._stream = stream
        self.is_closed = False

    async def unary(self, call: Call, request: Message) -> Message:
        """See `AsyncTransport`."""
        return await self._unary(call, request)

    async def stream(
        self, call: Call, requests: AsyncIterator[Message]
    ) -> AsyncGenerator[Message, None]:
        """See `AsyncTransport`."""
        if self._stream is None:
            raise NotImplementedError("this AsyncMockTransport was given no stream function")
        async for answer in self._stream(call, requests):
            yield answer

    async def close(self) -> None:
        """See `AsyncTransport`."""
        self.is_closed = True
