"""Small writes put together: the head and the parts of an answer are one packet, not four."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Cork"]

_MAX_HELD_BYTES = 65536


class Cork:
    """A transport whose writes of one turn of the loop go out together; else as the one it wraps.

    Threading: confined to the event loop.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._call_soon = asyncio.get_running_loop().call_soon
        self._held: list[bytes] = []
        self._held_bytes = 0
        # Everything else is the transport's own, looked up once.
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Holds it until the turn is over; much goes out at once, uncopied."""
        if not self._held:
            self._call_soon(self._flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._flush()

    def close(self) -> None:
        """Closes once everything is out."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes now; what is held is lost."""
        self._held = []
        self._held_bytes = 0
        self._transport.abort()

    def set_protocol(self, protocol: Any) -> None:
        """As the transport's."""
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        held, size_bytes = self._held, self._held_bytes
        if not held:
            return
        self._held, self._held_bytes = [], 0
        if self._transport.is_closing():
            return
        if size_bytes > _MAX_HELD_BYTES:
            self._transport.writelines(held)
        else:
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
