"""A client's standard streams in the broker, where no client may hold up another.

The descriptors are the client's: shared with it, and perhaps with others that know nothing of us.
So their modes stay as they are. A thread of ours waits for them and for the client's end at the
same time, and a pipe or terminal is opened once more, so that a write that finds no room returns.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading

__all__ = ["End", "Input", "Output"]

_READ_BYTES = 1 << 17
# What a pipe that polls as writable takes without waiting (pipe(7), PIPE_BUF).
_SURE_BYTES = 4096
_CLOSE_SECONDS = 0.1
_NULL_DEVICE = os.makedev(1, 3)  # null(4)
_PTMX_DEVICE = os.makedev(5, 2)  # pts(4): who opens it has a new terminal


class End:
    """Whether a command's client has ended, or no longer wants it; wakes all who wait."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._going = threading.Event()
        self._going.set()
        self.come = False

    def set(self) -> None:
        """Let it come."""
        self.come = True
        os.eventfd_write(self._event, 1)
        self._going.set()

    def pause(self, paused: bool) -> None:
        """Hold up whoever writes, or no longer."""
        if paused and not self.come:
            self._going.clear()
        else:
            self._going.set()

    def wait_for(self, descriptor: int, what: int) -> bool:
        """Wait for a descriptor's ``what`` (poll(2)); False if the end came instead."""
        self._going.wait()
        poll = select.poll()
        poll.register(descriptor, what)
        poll.register(self._event, select.POLLIN)
        poll.poll()
        return not self.come

    def __del__(self) -> None:
        # Not before: a descriptor's number that a thread still polls may not be another's.
        os.close(self._event)


class _Stream:
    """A descriptor that is closed once, and never while a thread reads or writes it."""

    def __init__(self, descriptor: int, end: End, mode: int):
        """Take over ``descriptor``; raises OSError, and has then closed it."""
        self._socket: socket.socket | None = None
        try:
            info = os.fstat(descriptor)
            self._device = info.st_rdev
            if stat.S_ISSOCK(info.st_mode):
                self._socket = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._waits = _reopened(descriptor, mode)
        self._end = end
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close it, unless a thread is in the midst of a call that takes its time."""
        if not self._lock.acquire(timeout=_CLOSE_SECONDS):
            return
        try:
            if not self._closed:
                self._closed = True
                if self._socket is not None:
                    self._socket.close()
                else:
                    os.close(self._descriptor)
        finally:
            self._lock.release()


class Output(_Stream):
    """A standard output or error of a client."""

    def __init__(self, descriptor: int, end: End):
        super().__init__(descriptor, end, os.O_WRONLY)

    def write(self, data: bytes) -> None:
        """Write all of it; raises KeyboardInterrupt if the end comes before, and OSError."""
        view = memoryview(data)
        while view:
            if not self._end.wait_for(self._descriptor, select.POLLOUT):
                raise KeyboardInterrupt
            with self._lock, contextlib.suppress(BlockingIOError):
                if self._closed:
                    raise KeyboardInterrupt
                view = view[self._write(view) :]

    def write_at_once(self, data: bytes) -> None:
        """Write what there is room for now, if any, also after the end."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        with self._lock, contextlib.suppress(OSError):
            if not self._closed and poll.poll(0):
                self._write(memoryview(data))

    def _write(self, view: memoryview) -> int:
        if self._socket is not None:
            return self._socket.send(view, socket.MSG_DONTWAIT)
        return os.write(self._descriptor, view[:_SURE_BYTES] if self._waits else view)


class Input(_Stream):
    """A standard input of a client."""

    def __init__(self, descriptor: int, end: End):
        super().__init__(descriptor, end, os.O_RDONLY)

    @property
    def empty(self) -> bool:
        """Whether it is known to have nothing, being /dev/null."""
        return self._device == _NULL_DEVICE

    def read(self) -> bytes:
        """Return what there is, waiting for it; nothing at the end, and when it is of no more use.

        Nothing is taken that is not returned: what follows is for whoever reads there next.
        """
        while self._end.wait_for(self._descriptor, select.POLLIN):
            with self._lock, contextlib.suppress(BlockingIOError):
                if self._closed:
                    return b""
                if self._socket is not None:
                    return self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                return os.read(self._descriptor, _READ_BYTES)
        return b""


def _reopened(descriptor: int, mode: int) -> tuple[int, bool]:
    """Return a descriptor for a client's, which is closed, and whether calls on it may wait."""
    info = os.fstat(descriptor)
    if not stat.S_ISFIFO(info.st_mode) and not os.isatty(descriptor):
        return descriptor, False
    if info.st_rdev == _PTMX_DEVICE:
        return descriptor, True
    try:
        fresh = os.open(
            f"/proc/self/fd/{descriptor}",
            # A terminal must not become ours.
            mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
        )
    except OSError:
        return descriptor, True  # Another user's, or a pipe that nobody reads any more.
    os.close(descriptor)
    return fresh, False
