"""The bytes that go to a server, sent by a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vmconnect.errors import ConnectionLostError, VmconnectError
from vmconnect.streams import Stream

__all__ = ["Outbox"]

_MOST_PENDING = 8 * 1024 * 1024
"""A server that reads so little is gone; the largest clipboard fits twice."""

_PIECE = 64 * 1024
"""What is handed to the stream at a time: of what is cut, no more is uncertain."""


class Outbox:
    """Sends in order, without ever making the caller wait.

    What goes at once is sent at once, and only the rest by the thread: to wake it takes longer. If
    whoever reads from a server also wrote to it, both could wait for each other for ever: the
    server for its pixels to be read, the reader for its bytes to be taken.

    ``tick`` is called by the thread every ``period`` seconds, where it is given: it may `put`.
    """

    def __init__(
        self,
        stream: Stream,
        name: str,
        on_error: Callable[[VmconnectError], None],
        tick: Callable[[], None] | None = None,
        period: float | None = None,
    ):
        self._stream = stream
        self._on_error = on_error
        self._tick = tick
        self._period = period if tick is not None else None
        self._pending = bytearray()
        # Whether the thread is sending what was pending.
        self._sending = False
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.taken = 0
        """How many bytes were put."""

    @property
    def handed(self) -> int:
        """How many of the bytes that were put have left, or are just leaving."""
        with self._changed:
            return self.taken - len(self._pending)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Send ``data`` after all that was put before.

        Raises ConnectionLostError if the server has not read for long, or no more is sent, and
        what the stream does; then nothing of ``data`` is taken.
        """
        with self._changed:
            if self._closing:
                raise ConnectionLostError("the connection has ended")
            size = len(data)
            if not self._pending and not self._sending:
                data = data[self._stream.send_at_once(data) :]
            if len(self._pending) + len(data) > _MOST_PENDING:
                raise ConnectionLostError("the VNC server no longer reads what it is sent")
            self.taken += size
            if data:
                self._pending += data
                self._changed.notify()

    def finish(self, timeout: float) -> None:
        """Send what is pending, if that takes no longer than ``timeout`` seconds, and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)

    def join(self) -> None:
        """Wait until the thread is over: the stream is closed."""
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing, self._period)
                idle = not self._pending and not self._closing
                data = bytes(self._pending[:_PIECE])
                del self._pending[:_PIECE]
                self._sending = bool(data)
            if idle and self._tick is not None:
                self._tick()
                continue
            if not data:
                return
            try:
                self._stream.sendall(data)
            except VmconnectError as error:
                self._on_error(error)
                return
            with self._changed:
                self._sending = False
