"""What an encrypted connection is to the engine."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Tunnel"]


class Tunnel(Protocol):
    """Turns what the server sent into what it said, and what we say into what is sent.

    It does no I/O. `seal` may be called by one thread while another calls `feed` and
    `read_into`; no other two at once.
    """

    established: bool
    """Whether plain bytes can pass."""

    def next_buffer(self) -> memoryview:
        """Return where the next bytes from the server may be written, for `feed`."""

    def feed(self, data: memoryview) -> None:
        """Take bytes from the server; all plain ones must be read before the next."""

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first.

        Raises RfbError for what is not properly encrypted.
        """

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as it goes to the server, after what the tunnel itself has to send."""
