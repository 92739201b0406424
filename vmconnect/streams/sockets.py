"""Streams over the kernel's sockets: TCP, UNIX, vsock."""

from __future__ import annotations

import contextlib
import socket

from vmconnect.errors import ConnectionLostError, DeadlineError, UnsupportedError

__all__ = ["SocketStream"]


def _translated(error: OSError, name: str) -> ConnectionLostError | DeadlineError:
    if isinstance(error, TimeoutError):
        return DeadlineError(f"no answer from {name} in time")
    return ConnectionLostError(f"the connection to {name} broke: {error.strerror or error}")


class SocketStream:
    """A connected socket as a `Stream`; ``name`` says in errors what it leads to."""

    def __init__(self, sock: socket.socket, name: str):
        self._socket = sock
        self.name = name

    def recv(self, size: int, /) -> bytes:
        """Return 1 to ``size`` bytes, or none at the end."""
        try:
            return self._socket.recv(size)
        except OSError as error:
            raise _translated(error, self.name) from error

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into ``buffer`` and return how many bytes came, 0 at the end."""
        try:
            return self._socket.recv_into(buffer)
        except OSError as error:
            raise _translated(error, self.name) from error

    def fill(self, buffer: memoryview, /) -> int:
        """Read until ``buffer`` is full; return how many bytes came, fewer only at the end."""
        filled = 0
        try:
            # Mostly one call: the kernel waits for all, unless there is a timeout.
            while filled < len(buffer) and (
                count := self._socket.recv_into(buffer[filled:], 0, socket.MSG_WAITALL)
            ):
                filled += count
        except OSError as error:
            raise _translated(error, self.name) from error
        return filled

    def send(self, data: bytes | memoryview, /) -> int:
        """Send some of ``data`` and return how many bytes went."""
        try:
            return self._socket.send(data)
        except OSError as error:
            raise _translated(error, self.name) from error

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all of ``data``."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise _translated(error, self.name) from error

    def send_at_once(self, data: bytes | memoryview, /) -> int:
        """Send what of ``data`` goes without waiting, which may be nothing; return how much."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _translated(error, self.name) from error

    def send_descriptor(self, data: bytes, descriptor: int) -> None:
        """Send all of ``data`` with a file descriptor beside its first byte (SCM_RIGHTS).

        Raises UnsupportedError where the connection is no UNIX socket.
        """
        if self._socket.family != socket.AF_UNIX:
            raise UnsupportedError(f"{self.name} takes no file descriptors: it is no UNIX socket")
        try:
            sent = socket.send_fds(self._socket, [data], [descriptor])
        except OSError as error:
            raise _translated(error, self.name) from error
        self.sendall(data[sent:])

    def settimeout(self, seconds: float | None, /) -> None:
        """Bound each later call; None waits for ever."""
        # A timeout of zero would make the socket non-blocking; an overdue deadline still polls.
        try:
            self._socket.settimeout(None if seconds is None else max(seconds, 0.001))
        except OSError as error:  # Another thread has closed it.
            raise _translated(error, self.name) from error

    def shutdown_write(self) -> None:
        """Say that no more bytes will be sent; reading goes on."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _translated(error, self.name) from error

    def close(self) -> None:
        """End the pipe both ways and wake whoever waits in it."""
        # Closing a descriptor does not wake a reader in another thread; shutting it down does.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once closed."""
        return self._socket.fileno()

    def __repr__(self) -> str:
        return f"<SocketStream to {self.name}>"
