"""What an encoding is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.jobs import WIRE, DrawError, Fault, Job, Kind, compressed_at_most

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = [
    "HEADER_BYTES",
    "LENGTH_BYTES",
    "Encoding",
    "Rectangle",
    "Source",
    "await_compressed",
    "await_length",
]

HEADER_BYTES = 12
"""The length of a rectangle's header."""

_U32 = struct.Struct(">I")

LENGTH_BYTES = _U32.size
"""The length of the length before zlib data."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle's header: pseudo-encodings use the numbers as they like."""

    x: int
    y: int
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.x},{self.y}"

    def job(
        self,
        kind: Kind,
        length: int,
        source: int = WIRE,
        size: int = 0,
        start: int = 0,
        *,
        colours: int = 0,
        palette: int = 0,
        resets: int = 0,
    ) -> Job:
        """Return the job to draw it: ``length`` bytes at ``start`` are the rest of its body."""
        places = -HEADER_BYTES, start, length, size, palette
        area = self.x, self.y, self.width, self.height
        return Job(*places, *area, colours, kind, source, resets)


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding: ``decode(engine, rectangle)`` reads what follows the header.

    ``draws`` says that it fills its rectangle with pixels: the engine has then compared the
    rectangle with the screen before it calls. Such an encoding waits until the body is whole in
    the inbox, checks its lengths, and has it drawn by `vmconnect.vnc.walk.Walk.one`.
    """

    number: int
    name: str
    decode: Callable[[Engine, Rectangle], Reading[None]]
    draws: bool = False


class Source:
    """Bytes to draw from, for the encodings' ``draw``: the kernel in Python."""

    def __init__(self, data: bytes | memoryview):
        self._data = memoryview(data)
        self._position = 0

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return len(self._data) - self._position

    def take(self, count: int) -> memoryview:
        """Return the next bytes. Raises DrawError if there are not as many."""
        if count > self.left:
            raise DrawError(Fault.SHORT)
        self._position += count
        return self._data[self._position - count : self._position]

    def peek(self) -> int | None:
        """Return the next byte, if there is one, and leave it unread."""
        return self._data[self._position] if self.left else None

    def byte(self) -> int:
        """Return the next byte. Raises DrawError if there is none."""
        return self.take(1)[0]


def await_length(engine: Engine, name: str, size: int) -> Reading[int]:
    """Return the length before zlib data that inflate to ``size`` bytes at most; it stays unread.

    Raises RfbError if it is more than that can be.
    """
    yield from engine.inbox.need(LENGTH_BYTES)
    (length,) = _U32.unpack(engine.inbox.peek(LENGTH_BYTES))
    if length > compressed_at_most(size):
        raise engine.error(f"{length} bytes of {name} data, for at most {size} when inflated")
    return int(length)


def await_compressed(engine: Engine, name: str, size: int) -> Reading[int]:
    """Return the length before zlib data, as `await_length`, when they are whole in the inbox.

    They begin LENGTH_BYTES after the first unread byte.
    """
    length = yield from await_length(engine, name, size)
    yield from engine.inbox.need(LENGTH_BYTES + length)
    return length
