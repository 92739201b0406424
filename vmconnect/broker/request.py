"""One command of one client, from the order to the exit code."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from vmconnect.broker import wire
from vmconnect.broker.order import Order
from vmconnect.broker.standard import End, Input, Output
from vmconnect.errors import VmconnectError

__all__ = ["DeclinedError", "Request"]

_SURE_ENCODING = "utf-8"
_MOST_SIGNALS = 64


class DeclinedError(Exception):
    """The client is to do it alone: nothing has been done for it yet.

    ``lasting`` if the same would come of a second try.
    """

    def __init__(self, reason: str, *, lasting: bool = False):
        super().__init__(reason)
        self.lasting = lasting


class Request:
    """What the thread that runs a command has of its client; made by the loop that heard it.

    ``descriptors`` are the client's standard ones and are the request's from here, also if it
    cannot be made (OSError). ``on_over`` is called, once and from any thread, when the client has
    been told the end.
    """

    def __init__(
        self,
        order: Order,
        connection: socket.socket,
        descriptors: Sequence[int],
        on_over: Callable[[], object],
    ):
        self.order = order
        self.over = False
        self._connection = connection
        self._on_over = on_over
        self._end, self._input, self._output, self._error_output = _streams(descriptors)
        self._lock = threading.Lock()
        self._interrupted = self._gone = False
        self._hang_up: Callable[[], object] | None = None
        self._send_signal: Callable[[str], object] | None = None
        self._signals: list[str] = []
        self._wakers: list[Callable[[], object]] = []
        self._afterwards: list[Callable[[], object]] = []
        self._typed: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    # For the thread that runs the command.

    @property
    def interrupted(self) -> bool:
        """Whether the client wants it no longer."""
        return self._interrupted

    def check(self) -> None:
        """Raise KeyboardInterrupt if the client wants it no longer."""
        if self._interrupted:
            raise KeyboardInterrupt

    def begin(self) -> None:
        """Tell the client that from now on nobody but we may run its command.

        Raises KeyboardInterrupt if it is not there to hear it, or does not want it.
        """
        self.check()
        if not self._tell(wire.BEGUN):
            raise KeyboardInterrupt

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that the client has passed on."""
        with self._lock:
            return tuple(self._signals)

    def started(self, hang_up: Callable[[], object], send_signal: Callable[[str], object]) -> None:
        """Take note of how to hang up on the command that now runs, and to send it signals."""
        with self._lock:
            self._hang_up, self._send_signal = hang_up, send_signal
            early = tuple(self._signals)
        if self._interrupted:
            hang_up()
        for name in early:
            _pass_on(send_signal, name)

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` if the client loses interest within the ``with`` block."""
        with self._lock:
            self._wakers.append(wake)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)

    def input(self) -> Iterator[bytes] | None:
        """Give what the client's standard input gives, until that or the command ends.

        None if it is known to give nothing.
        """
        return None if self._input.empty else self._chunks()

    def _chunks(self) -> Iterator[bytes]:
        while data := self._typed_input() if self.order.terminal else self._input.read():
            yield data

    def afterwards(self, action: Callable[[], object]) -> None:
        """Have something done when the client has been told how it ended."""
        self._afterwards.append(action)

    def output(self, data: bytes) -> None:
        """Write to the client's standard output; raises KeyboardInterrupt, OSError."""
        self._output.write(data)

    def error_output(self, data: bytes) -> None:
        """Write to the client's standard error; raises as `output`."""
        self._error_output.write(data)

    def say(self, text: str) -> None:
        """Print ``text`` on the client's standard error, as its own process would."""
        try:
            data = text.encode(self.order.encoding, "backslashreplace")
        except (LookupError, ValueError):
            data = text.encode(_SURE_ENCODING, "backslashreplace")
        if self._gone:
            return
        if self._interrupted:
            self._error_output.write_at_once(data)
        else:
            self.error_output(data)

    # For either side.

    def conclude(self, message: bytes) -> None:
        """Put the client's descriptors away, and then tell it how it ended, unless it knows."""
        with self._lock:
            first, self.over = not self.over, True
        self._end.set()
        self._typed.put(b"")
        for stream in (self._input, self._output, self._error_output):
            stream.close()
        if first:
            self._tell(message)
            self._on_over()

    def finish(self) -> None:
        """Do what was to be done afterwards."""
        for action in self._afterwards:
            action()

    # For the loop that hears the client.

    def hear(self, packet: bytes) -> None:
        """Do what the client says."""
        kind = packet[:1]
        if kind == wire.INPUT:
            self._typed.put(packet[1:])
        elif kind == wire.INTERRUPT:
            self.interrupt()
        elif kind == wire.SIGNAL:
            self._hear_signal(packet[1:].decode("ascii", "replace"))
        elif kind in {wire.PAUSE, wire.RESUME}:
            self._end.pause(kind == wire.PAUSE)

    def _hear_signal(self, name: str) -> None:
        with self._lock:
            if len(self._signals) < _MOST_SIGNALS:
                self._signals.append(name)
            send_signal = self._send_signal
        if send_signal is not None:
            _pass_on(send_signal, name)

    def interrupt(self, *, gone: bool = False) -> None:
        """Have the command hung up on; ``gone`` if there is nobody to tell."""
        with self._lock:
            self._gone |= gone
            first, self._interrupted = not self._interrupted, True
            hang_up, wakers = self._hang_up, tuple(self._wakers)
        if not first:
            return
        self._end.set()
        for wake in wakers:
            wake()
        if hang_up is not None:
            # It is said to the guest, which may not listen.
            threading.Thread(target=hang_up, name="vmconnect-hang-up", daemon=True).start()

    def _typed_input(self) -> bytes:
        return self._typed.get() if self._tell(wire.WANT) else b""

    def _tell(self, message: bytes) -> bool:
        try:
            # A client that does not read has been told little so far: there is room.
            self._connection.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


def _pass_on(send_signal: Callable[[str], object], name: str) -> None:
    """Send a signal in a thread of its own: the guest may not listen."""

    def run() -> None:
        with contextlib.suppress(VmconnectError):
            send_signal(name)

    threading.Thread(target=run, name="vmconnect-signal", daemon=True).start()


def _streams(descriptors: Sequence[int]) -> tuple[End, Input, Output, Output]:
    """Take descriptors over, or close them all."""
    made: list[Input | Output] = []
    try:
        end = End()
    except OSError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    try:
        made.append(Input(descriptors[0], end))
        made.append(Output(descriptors[1], end))
        made.append(Output(descriptors[2], end))
    except OSError:
        for stream in made:
            stream.close()
        # The one that could not be made has closed its own.
        for descriptor in descriptors[len(made) + 1 :]:
            os.close(descriptor)
        raise
    return cast("tuple[End, Input, Output, Output]", (end, *made))
