"""What RFB, SSH and QMP see of whatever they run over."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["Stream"]


@runtime_checkable
class Stream(Protocol):
    """A connected, ordered byte pipe with deadlines and half-close.

    The names are a socket's, so that paramiko and websockify take a stream for one. Methods
    raise `vmconnect.errors.DeadlineError` when the timeout passes and
    `vmconnect.errors.ConnectionLostError` when the pipe breaks; a far end that closed properly
    reads as no bytes. One thread may read while another writes; ``close`` may come from any.
    """

    def recv(self, size: int, /) -> bytes:
        """Return 1 to ``size`` bytes, or none at the end."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into ``buffer`` and return how many bytes came, 0 at the end."""

    def fill(self, buffer: memoryview, /) -> int:
        """Read until ``buffer`` is full; return how many bytes came, fewer only at the end."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send some of ``data`` and return how many bytes went."""

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all of ``data``."""

    def send_at_once(self, data: bytes | memoryview, /) -> int:
        """Send what of ``data`` goes without waiting, which may be nothing; return how much."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Bound each later call; None waits for ever."""

    def shutdown_write(self) -> None:
        """Say that no more bytes will be sent; reading goes on."""

    def close(self) -> None:
        """End the pipe both ways and wake whoever waits in it."""

    def fileno(self) -> int:
        """Return a descriptor that can be polled for reading."""
