"""How keyboard, mouse and clipboard reach a server."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Sender"]


class Sender(Protocol):
    """Sends a message of theirs, or raises ConnectionLostError and sends nothing."""

    def __call__(self, data: bytes, what: str, /) -> object:
        """Send ``data``; ``what`` names it, should it be lost, or is empty for what no one misses.

        What is pressed is missed; that it is let go, or the pointer moves, is not.
        """
