"""What RFB, SSH and QMP see of whatever they run over."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from vmconnect.deadline import Deadline

__all__ = ["Stream", "Wire"]


@runtime_checkable
class Stream(Protocol):
    """A connected, ordered byte pipe with deadlines and half-close.

    The names are a socket's, so that paramiko and websockify take a stream for one. Methods
    raise `vmconnect.errors.DeadlineError` when the timeout passes and
    `vmconnect.errors.ConnectionLostError` when the pipe breaks, or is closed here while they wait
    or before; a far end that closed properly reads as no bytes. One thread may read while another
    writes; ``close`` may come from any.

    Whoever is told that only a part of some data went must send the rest of it next, if anything.
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
        """Return a descriptor that polls as readable when there may be something to read.

        It always does when there is something, also what has come already and was not asked for
        yet. That it does is no promise of bytes where others lie below them (TLS, WebSocket): a
        reader that must not wait sets a timeout.
        """


class Wire(Stream, Protocol):
    """A stream that others can be laid over (`vmconnect.streams.layered`).

    What lies over it waits for itself, with its own deadlines, and sets no timeout here.
    """

    name: str
    """What it leads to, for errors."""

    def receive_at_once(self, buffer: memoryview, /) -> int | None:
        """Read what is here into ``buffer``: how many bytes, 0 at the end, None if none is yet."""

    def wait(self, deadline: Deadline, /, *, reading: bool = False, writing: bool = False) -> None:
        """Return when there may be something to read, or room to write in.

        Only what `receive_at_once` or `send_at_once` could not do may be waited for.
        """
