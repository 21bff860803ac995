"""What a graph's file says, as it may stand in a line of a log."""

from __future__ import annotations

__all__ = ["shown"]


def shown(text: str, most: int = 64) -> str:
    """At most so many characters, without those that would end or colour a line."""
    return "".join(each if each.isprintable() else "?" for each in text[:most])
