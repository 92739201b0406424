"""The bytes that go to a server, sent by a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmconnect.errors import ConnectionLostError, VmconnectError
from vmconnect.streams import Stream

__all__ = ["Outbox"]

_MOST_PENDING = 8 * 1024 * 1024
"""A server that reads so little is gone; the largest clipboard fits twice."""


class Outbox:
    """Sends in order, without ever making the caller wait.

    What goes at once is sent at once, and only the rest by the thread: to wake it takes longer. If
    whoever reads from a server also wrote to it, both could wait for each other for ever: the
    server for its pixels to be read, the reader for its bytes to be taken.
    """

    def __init__(self, stream: Stream, name: str, on_error: Callable[[VmconnectError], None]):
        self._stream = stream
        self._on_error = on_error
        self._pending = bytearray()
        # Whether the thread is sending what was pending.
        self._sending = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Send ``data`` after all that was put before.

        Raises ConnectionLostError if the server has not read for long, or what the stream does.
        """
        with self._changed:
            if not self._pending and not self._sending and not self._closing:
                data = data[self._stream.send_at_once(data) :]
                if not data:
                    return
            if len(self._pending) + len(data) > _MOST_PENDING:
                raise ConnectionLostError("the VNC server no longer reads what it is sent")
            self._pending += data
            self._changed.notify()

    def finish(self, timeout: float) -> None:
        """Send what is pending, if that takes no longer than ``timeout`` seconds, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def join(self) -> None:
        """Wait until the thread is over: the stream is closed."""
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                data = bytes(self._pending)
                self._pending.clear()
                self._sending = bool(data)
            if not data:
                return
            try:
                self._stream.sendall(data)
            except VmconnectError as error:
                self._on_error(error)
                return
            with self._changed:
                self._sending = False
