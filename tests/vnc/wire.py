"""What servers send, and scripts of who says what."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Self

import numpy as np

from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.encodings import OFFERED
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.messages import framebuffer_update_request, set_encodings
from vmconnect.vnc.pixel_format import OURS, PixelFormat

SET_ENCODINGS = set_encodings(OFFERED)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def long(value: int) -> bytes:
    return struct.pack(">I", value)


def string(data: bytes) -> bytes:
    return long(len(data)) + data


def server_init(
    width: int, height: int, name: bytes = b"desk", pixel_format: PixelFormat = OURS
) -> bytes:
    return words(width, height) + pixel_format.pack() + string(name)


def hello(width: int, height: int, name: bytes = b"desk") -> bytes:
    """Return all that a 3.8 server without password says up to ServerInit."""
    return b"RFB 003.008\n" + b"\1\1" + long(0) + server_init(width, height, name)


def rectangle(  # noqa: PLR0917 (the protocol's)
    x: int, y: int, width: int, height: int, encoding: int, body: bytes = b""
) -> bytes:
    return struct.pack(">HHHHi", x, y, width, height, encoding) + body


def raw(x: int, y: int, pixels: Pixels) -> bytes:
    height, width = pixels.shape
    return rectangle(x, y, width, height, 0, pixels.astype("<u4").tobytes())


def copyrect(  # noqa: PLR0917 (the protocol's)
    x: int, y: int, width: int, height: int, from_x: int, from_y: int
) -> bytes:
    return rectangle(x, y, width, height, 1, words(from_x, from_y))


def update(*rectangles: bytes, count: int | None = None) -> bytes:
    number = len(rectangles) if count is None else count
    return b"\0\0" + words(number) + b"".join(rectangles)


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 1 << 24, (height, width), dtype=np.uint32)


def request(incremental: bool, width: int, height: int) -> bytes:
    return framebuffer_update_request(incremental, 0, 0, width, height)


def connected(width: int, height: int, *, pull: bool = True) -> Engine:
    """Return an engine past its handshake, with nothing left to be sent or told."""
    engine = Engine(pull=pull)
    engine.receive(hello(width, height))
    engine.data_to_send()
    return engine


class Script:
    """Who says what: ``>>`` is what the server sends, ``<<`` what is expected of the engine.

    Expected bytes are what the engine sends, expected events what it tells, both in order and
    with nothing left over before the next ``>>`` and at `end`.
    """

    def __init__(self, engine: Engine | None = None, password: str | None = None):
        self.engine = engine or Engine(Credentials(password))
        self._events: list[Event] = []
        self._sent = b""

    def __rshift__(self, data: bytes) -> Self:
        self.end()
        self._events = self.engine.receive(data)
        self._sent = self.engine.data_to_send()
        return self

    def __lshift__(self, expected: bytes | Event) -> Self:
        if isinstance(expected, bytes):
            assert self._sent[: len(expected)] == expected
            self._sent = self._sent[len(expected) :]
        else:
            assert self._events[:1] == [expected]
            self._events.pop(0)
        return self

    def end(self) -> None:
        assert self._sent == b""
        assert self._events == []


def feed(engine: Engine, data: bytes, cuts: Sequence[int]) -> list[Event]:
    """Feed ``data`` in pieces that end at ``cuts``, by both ways in turn."""
    events: list[Event] = []
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    start = 0
    for turn, end in enumerate(ends):
        piece = data[start:end]
        start = end
        if turn % 2:
            events += engine.receive(piece)
            continue
        while piece:
            buffer = engine.next_buffer()
            count = min(len(buffer), len(piece))
            buffer[:count] = piece[:count]
            events += engine.received(count)
            piece = piece[count:]
    return events
