"""Streams over the kernel's sockets: TCP, UNIX, vsock."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectionLostError, DeadlineError, UnsupportedError

__all__ = ["SocketStream"]


class SocketStream:
    """A connected socket as a `Stream`; ``name`` says in errors what it leads to.

    Where the two directions are two sockets, ``sock`` is read from and ``sending`` written to.
    """

    def __init__(self, sock: socket.socket, name: str, *, sending: socket.socket | None = None):
        self.name = name
        self._socket = sock
        self._sending = sending or sock
        self._closed = False
        # How many threads poll the sockets: the last of them closes those of a closed stream.
        self._polling = 0
        self._guard = threading.Lock()

    def recv(self, size: int, /) -> bytes:
        """Return 1 to ``size`` bytes, or none at the end."""
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            # Another thread is in the midst of settimeout(None).
            self.wait(Deadline(None), reading=True)
            return self.recv(size)
        except OSError as error:
            raise self._translated(error) from error
        if not data:
            self._ended()
        return data

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into ``buffer`` and return how many bytes came, 0 at the end."""
        try:
            count = self._socket.recv_into(buffer)
        except OSError as error:
            raise self._translated(error) from error
        return count or self._ended()

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
            raise self._translated(error) from error
        return filled or self._ended()

    def receive_at_once(self, buffer: memoryview, /) -> int | None:
        """Read what is here into ``buffer``: how many bytes, 0 at the end, None if none is yet."""
        try:
            if not self._is_ready(self._socket, select.POLLIN):
                return None
            count = self._socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._translated(error) from error
        return count or self._ended()

    def send(self, data: bytes | memoryview, /) -> int:
        """Send some of ``data`` and return how many bytes went."""
        try:
            return self._sending.send(data)
        except BlockingIOError:
            self.wait(Deadline(None), writing=True)
            return self.send(data)
        except OSError as error:
            raise self._translated(error) from error

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all of ``data``."""
        try:
            self._sending.sendall(data)
        except OSError as error:
            raise self._translated(error) from error

    def send_at_once(self, data: bytes | memoryview, /) -> int:
        """Send what of ``data`` goes without waiting, which may be nothing; return how much."""
        try:
            if not self._is_ready(self._sending, select.POLLOUT):
                return 0
            return self._sending.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._translated(error) from error

    def send_descriptor(self, data: bytes, descriptor: int) -> None:
        """Send all of ``data`` with a file descriptor beside its first byte (SCM_RIGHTS).

        Raises UnsupportedError where the connection is no UNIX socket.
        """
        if self._socket.family != socket.AF_UNIX:
            raise UnsupportedError(f"{self.name} takes no file descriptors: it is no UNIX socket")
        try:
            sent = socket.send_fds(self._socket, [data], [descriptor])
        except OSError as error:
            raise self._translated(error) from error
        if rest := data[sent:]:  # Who has all may have closed: even nothing cannot be sent then.
            self.sendall(rest)

    def wait(self, deadline: Deadline, /, *, reading: bool = False, writing: bool = False) -> None:
        """Return when there may be something to read, or room to write in."""
        poller = select.poll()
        with self._guard:
            self._check_open()
            if writing:
                poller.register(self._sending, select.POLLOUT)
            if reading:
                both = writing and self._sending is self._socket
                poller.register(self._socket, select.POLLIN | (select.POLLOUT if both else 0))
            self._polling += 1
        try:
            left = deadline.remaining()
            ready = poller.poll(None if left is None else math.ceil(left * 1000))
        finally:
            with self._guard:
                self._polling -= 1
                if self._closed and not self._polling:
                    self._release()
        if not ready:
            raise self._late()

    def settimeout(self, seconds: float | None, /) -> None:
        """Bound each later call; None waits for ever."""
        # A timeout of zero would make the socket non-blocking; an overdue deadline still polls.
        timeout = None if seconds is None else max(seconds, 0.001)
        try:
            self._socket.settimeout(timeout)
            self._sending.settimeout(timeout)
        except OSError as error:
            raise self._translated(error) from error

    def shutdown_write(self) -> None:
        """Say that no more bytes will be sent; reading goes on."""
        try:
            self._sending.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """End the pipe both ways and wake whoever waits in it."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            # Closing a descriptor does not wake a reader in another thread; shutting it down does.
            for each in (self._socket, self._sending):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if not self._polling:
                self._release()

    def fileno(self) -> int:
        """Return the descriptor that is read from, -1 once closed."""
        return self._socket.fileno()

    def _release(self) -> None:
        """Close the sockets, once: nobody polls them, so their numbers may be used anew."""
        self._socket.close()
        self._sending.close()

    def _ended(self) -> int:
        """Return 0 for the far end's proper end; raises ConnectionLostError for any other."""
        self._check_open()
        return 0

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLostError(f"the connection to {self.name} was closed on this side")

    def _late(self) -> DeadlineError:
        return DeadlineError(f"no answer from {self.name} in time")

    def _translated(self, error: OSError) -> ConnectionLostError | DeadlineError:
        if isinstance(error, TimeoutError):
            return self._late()
        if self._closed:
            return ConnectionLostError(f"the connection to {self.name} was closed on this side")
        return ConnectionLostError(
            f"the connection to {self.name} broke: {error.strerror or error}"
        )

    @staticmethod
    def _is_ready(sock: socket.socket, event: int) -> bool:
        """Return whether a call with MSG_DONTWAIT will not wait.

        With a timeout Python itself would wait before it even makes the call.
        """
        if sock.gettimeout() is None:
            return True
        poller = select.poll()
        poller.register(sock, event)
        return bool(poller.poll(0))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.name}>"
