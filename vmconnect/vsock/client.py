"""The host's end of a connection: a UNIX socket, and what it has not taken yet."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

from vmconnect.vsock.poller import EDGE, ENDED, HUNG_UP, READABLE, WRITABLE, Poller

__all__ = ["Client"]

_INTEREST: Final = READABLE | ENDED | EDGE
# Buffers of one sendmsg; IOV_MAX is 1024.
_MAX_VIEWS: Final = 256


class Client:
    """A non-blocking socket in the poller.

    Events are edges: `readable` stays true until a read finds nothing, so a client that waits
    for the guest's credit costs no system call. The buffer of bytes that the socket would not
    take is bounded by the connection's window, not here; it is one piece, so that it costs what
    it holds into however many pieces the guest has cut it.
    """

    __slots__ = ("_buffer", "_poller", "_shut", "_sock", "closed", "gone", "on_event", "readable")

    def __init__(self, sock: socket.socket, poller: Poller, on_event: Callable[[], None]):
        """Wait for ``sock``; ``on_event`` is called after each change of what it can do."""
        sock.setblocking(False)
        self._sock = sock
        self._poller = poller
        self._buffer = bytearray()
        self._shut = False
        self.closed = False
        self.on_event = on_event
        self.readable = True
        self.gone = False
        poller.add(sock.fileno(), _INTEREST, self._handle)

    @property
    def drained(self) -> bool:
        """Whether nothing is held."""
        return not self._buffer

    def receive_line(self, limit: int) -> bytes | None:
        """Take a line and leave what follows it; None while it is not complete.

        Raises ConnectionError if the client ends before, or sends ``limit`` bytes without one.
        """
        try:
            ahead = self._sock.recv(limit, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        end = ahead.find(b"\n") + 1
        if not end:
            if not ahead or len(ahead) >= limit:
                raise ConnectionError("no line came")
            return None
        return self._sock.recv(end)

    def send_line(self, line: bytes) -> bool:
        """Send a line before anything else; return whether the client takes it, whole."""
        try:
            return self._send([memoryview(line)]) == len(line)
        except BrokenPipeError:
            return False

    def receive_into(self, views: Sequence[memoryview]) -> int | None:
        """Read into ``views``; return how many bytes came, 0 at the end, None if none wait."""
        try:
            return self._sock.recvmsg_into(views)[0]
        except BlockingIOError:
            self.readable = False
            return None
        except OSError:
            # ECONNRESET: it went away and left bytes of the guest's unread. Anything else, as
            # memory that is no longer there, cannot be gone on with either.
            self.gone = True
            return 0

    def send(self, views: Sequence[memoryview]) -> int:
        """Send what the socket takes and keep a copy of the rest; return how many bytes left.

        Raises BrokenPipeError if the client reads no more.
        """
        left = sent = 0 if self._buffer else self._send(views[:_MAX_VIEWS])
        for view in views:
            if left >= len(view):
                left -= len(view)
                continue
            # The guest gets its buffer back now, so what stays has to be copied.
            if not self._buffer:
                self._poller.change(self._sock.fileno(), _INTEREST | WRITABLE)
            self._buffer += view[left:]
            left = 0
        return sent

    def flush(self) -> int:
        """Send what is held; return how many bytes left.

        Raises BrokenPipeError if the client reads no more.
        """
        if not self._buffer:
            return 0
        sent = self._send([self._buffer])
        del self._buffer[:sent]
        if not self._buffer:
            self._poller.change(self._sock.fileno(), _INTEREST)
            if self._shut:
                self._shut_down(socket.SHUT_WR)
        return sent

    def discard(self) -> int:
        """Throw away what is held; return how many bytes that was."""
        count = len(self._buffer)
        self._buffer.clear()
        return count

    def end(self) -> None:
        """Tell the client, after what is held, that no more will come."""
        if not self._shut:
            self._shut = True
            if not self._buffer:
                self._shut_down(socket.SHUT_WR)

    def stop_reading(self) -> None:
        """Tell the client that what it sends goes nowhere."""
        self.readable = False
        self._shut_down(socket.SHUT_RD)

    def close(self) -> None:
        """Close the socket now; what is held is lost."""
        self._buffer.clear()
        if not self.closed:
            self.closed = True
            # It knows whose client this is, and that one knows us: a circle, which would wait
            # for the garbage collector.
            self.on_event = _nothing
            self._poller.retire(self._sock)

    def _send(self, views: Sequence[memoryview | bytearray]) -> int:
        try:
            return self._sock.sendmsg(views)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BrokenPipeError("the client reads no more") from error

    def _shut_down(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            self.gone = True  # ENOTCONN

    def _handle(self, events: int) -> None:
        if events & ~WRITABLE:
            self.readable = True
        if events & HUNG_UP:
            self.gone = True
        self.on_event()


def _nothing() -> None:
    """Be called by a socket that is closed."""
