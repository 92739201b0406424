"""Streams over other streams: what TLS and WebSocket have in common.

A `Layer` turns plain bytes into those on the wire and back, and does no I/O. `LayeredStream` lays
it over a `Wire`, is one itself, and is the one place that waits: by polling, with a deadline of
its own for each call, so that a reader and a writer never get into each other's timeouts.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Protocol

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, ConnectionLostError, VmconnectError
from vmconnect.streams.base import Wire
from vmconnect.streams.readiness import Readiness

__all__ = ["Layer", "LayeredStream"]

_READ_BYTES = 1 << 18
# What is turned into bytes on the wire at once: a record of TLS.
_SEND_BYTES = 1 << 14
# Answers of the layer's own (pongs) that the far end does not take. Past that nothing more is
# read from it: who only asks and never reads makes nobody's memory grow.
_MOST_PENDING = 1 << 16


class Layer(Protocol):
    """What lies between plain bytes and those on the wire; all errors are of our tree."""

    finished: bool
    """Whether the far end has said that it sends no more."""

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is over."""

    def feed(self, data: memoryview) -> None:
        """Take bytes from the wire."""

    def feed_end(self) -> None:
        """Take the wire's end; raises an error unless the far end has announced it."""

    def read_into(self, target: memoryview) -> int:
        """Write plain bytes to ``target``; return how many, 0 when more must be fed first."""

    def seal(self, data: memoryview) -> bytes:
        """Return ``data`` as it goes on the wire."""

    def owed(self) -> bytes:
        """Return what the layer itself has to send, and forget it."""

    def finish(self) -> bytes:
        """Return what says on the wire that we send no more."""


class LayeredStream:
    """A stream whose plain bytes go through ``layer`` to ``wire``, which it owns."""

    def __init__(self, wire: Wire, layer: Layer, name: str):
        self.name = name
        self._wire = wire
        self._layer = layer
        self._timeout: float | None = None
        # Held for what does not wait: a layer is for one thread at a time.
        self._lock = threading.Lock()
        self._scratch = memoryview(bytearray(_READ_BYTES))
        # What is to go on the wire.
        self._pending = bytearray()
        # How many of the caller's bytes are in it, or have gone, of which the caller was not told.
        self._ahead = 0
        self._finishing = False
        self._closed = False
        self._readiness: Readiness | None = None
        self._more = False

    def establish(self, deadline: Deadline) -> None:
        """Shake hands; raises what the layer does, ConnectError, DeadlineError."""
        try:
            while not self._advance(deadline):
                deadline.check(f"shaking hands with {self.name}")
        except ConnectionLostError as error:
            raise ConnectError(f"{self.name} hung up before it had shaken hands") from error

    def recv(self, size: int, /) -> bytes:
        """Return 1 to ``size`` bytes, or none at the end."""
        buffer = bytearray(min(size, _READ_BYTES))
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into ``buffer`` and return how many bytes came, 0 at the end."""
        return self._receive(buffer, Deadline(self._timeout))

    def fill(self, buffer: memoryview, /) -> int:
        """Read until ``buffer`` is full; return how many bytes came, fewer only at the end."""
        deadline = Deadline(self._timeout)
        filled = 0
        while filled < len(buffer) and (count := self._receive(buffer[filled:], deadline)):
            filled += count
        return filled

    def receive_at_once(self, buffer: memoryview, /) -> int | None:
        """Read what is here into ``buffer``: how many bytes, 0 at the end, None if none is yet."""
        with self._lock:
            self._check_open()
            filled = 0
            while filled < len(buffer):
                try:
                    count = self._layer.read_into(buffer[filled:])
                except VmconnectError:
                    if filled:
                        break  # First what came before; the error comes again.
                    raise
                filled += count
                if not count and (filled or self._layer.finished or self._pull() is None):
                    break
            # The end is something to be read, too.
            self._mark(more=filled == len(buffer) or self._layer.finished)
            return filled if filled or self._layer.finished else None

    def send(self, data: bytes | memoryview, /) -> int:
        """Send some of ``data`` and return how many bytes went."""
        return self._send(memoryview(data), Deadline(self._timeout))

    def sendall(self, data: bytes | memoryview, /) -> None:
        """Send all of ``data``."""
        deadline = Deadline(self._timeout)
        rest = memoryview(data)
        while rest:
            rest = rest[self._send(rest, deadline) :]

    def send_at_once(self, data: bytes | memoryview, /) -> int:
        """Send what of ``data`` goes without waiting, which may be nothing; return how much."""
        rest = memoryview(data)
        with self._lock:
            self._check_open()
            if self._finishing:
                raise ConnectionLostError(f"nothing more can be sent to {self.name}")
            total = 0
            while rest and self._push():
                if not self._ahead:
                    self._pending += self._layer.seal(rest[:_SEND_BYTES])
                    self._ahead = min(_SEND_BYTES, len(rest))
                    if not self._push():
                        break  # It counts when it has gone; the caller comes with it again.
                gone = min(self._ahead, len(rest))
                self._ahead -= gone
                total += gone
                rest = rest[gone:]
            return total

    def wait(self, deadline: Deadline, /, *, reading: bool = False, writing: bool = False) -> None:
        """Return when there may be something to read, or room to write in."""
        stuck = len(self._pending)
        self._wire.wait(
            deadline,
            reading=reading and stuck <= _MOST_PENDING,
            writing=writing or bool(stuck),
        )

    def settimeout(self, seconds: float | None, /) -> None:
        """Bound each later call; None waits for ever."""
        self._timeout = seconds

    def shutdown_write(self) -> None:
        """Say that no more bytes will be sent; reading goes on, as far as the layer allows."""
        deadline = Deadline(self._timeout)
        while True:
            with self._lock:
                self._check_open()
                self._finish()
                if self._push():
                    return
            self._wire.wait(deadline, writing=True)

    def close(self) -> None:
        """End the pipe both ways and wake whoever waits in it."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(VmconnectError):  # The far end may have gone.
                    self._finish()
                    self._push()
                self._closed = True
            if self._readiness is not None:
                self._readiness.close()
                self._readiness = None
        self._wire.close()

    def fileno(self) -> int:
        """Return a descriptor that polls as readable when there may be something to read.

        -1 once closed.
        """
        with self._lock:
            if self._readiness is None and not self._closed:
                self._readiness = Readiness(self._wire.fileno())
                self._readiness.mark(self._more)
            return self._readiness.fileno() if self._readiness is not None else -1

    def _advance(self, deadline: Deadline) -> bool:
        """Go on with the handshake; return whether it is over."""
        with self._lock:
            done = self._layer.handshake()
            gone = self._push()
            if not done and self._layer.finished:
                raise ConnectionLostError("it has ended")
            came = not done and gone and self._pull() is not None
        if not came and not (done and gone):
            self._wire.wait(deadline, reading=gone, writing=not gone)
        return done and gone

    def _receive(self, buffer: memoryview, deadline: Deadline) -> int:
        while (count := self.receive_at_once(buffer)) is None:
            self.wait(deadline, reading=True)
        return count

    def _send(self, data: memoryview, deadline: Deadline) -> int:
        while not (count := self.send_at_once(data)) and data:
            self._wire.wait(deadline, writing=True)
        return count

    def _pull(self) -> int | None:
        """Feed the layer with what is here: how many bytes, 0 at the end, None if none is yet."""
        if not self._push() and len(self._pending) > _MOST_PENDING:
            return None
        count = self._wire.receive_at_once(self._scratch)
        if count:
            self._layer.feed(self._scratch[:count])
        elif count == 0:
            self._layer.feed_end()
            self._layer.finished = True
        self._push()
        return count

    def _push(self) -> bool:
        """Send what is pending as far as it goes; return whether all has gone."""
        self._pending += self._layer.owed()
        while self._pending:
            sent = self._wire.send_at_once(bytes(self._pending))
            if not sent:
                return False
            del self._pending[:sent]
        return True

    def _finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            self._pending += self._layer.finish()

    def _mark(self, *, more: bool) -> None:
        """Note whether there may be more than was asked for."""
        self._more = more
        if self._readiness is not None:
            self._readiness.mark(more)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLostError(f"the connection to {self.name} was closed on this side")

    def __repr__(self) -> str:
        return f"<LayeredStream to {self.name}>"
