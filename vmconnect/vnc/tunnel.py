"""What an encrypted connection is to the engine."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NestedTunnel", "Tunnel"]


class Tunnel(Protocol):
    """Turns what the server sent into what it said, and what we say into what is sent.

    It does no I/O. `seal` may be called by one thread while another calls `feed` and
    `read_into`; no other two at once.
    """

    established: bool
    """Whether plain bytes can pass."""

    encrypts: bool
    """Whether nobody who listens can read what passes."""

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


class NestedTunnel:
    """A tunnel within another, both established; see `Tunnel`.

    QEMU has it: TLS without a certificate, and the layer of a SASL mechanism within.
    """

    established = True

    def __init__(self, outer: Tunnel, inner: Tunnel):
        self.encrypts = outer.encrypts or inner.encrypts
        self._outer = outer
        self._inner = inner

    def next_buffer(self) -> memoryview:
        """Return where the next bytes from the server may be written, for `feed`."""
        return self._outer.next_buffer()

    def feed(self, data: memoryview) -> None:
        """Take bytes from the server."""
        self._outer.feed(data)

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first.

        Raises RfbError for what is not properly encrypted.
        """
        while not (count := self._inner.read_into(target)):
            buffer = self._inner.next_buffer()
            passed = self._outer.read_into(buffer)
            if not passed:
                return 0
            self._inner.feed(buffer[:passed])
        return count

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as it goes to the server."""
        return self._outer.seal(self._inner.seal(data))
