"""What a server says: each function reads one message (RFC 6143, section 7.6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings import ENCODINGS, Rectangle
from vmconnect.vnc.events import Bell, ServerCutText, UpdateDone
from vmconnect.vnc.extensions import EXTENSIONS, ServerMessage
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["MAX_CUT_TEXT_BYTES", "SERVER_MESSAGES"]

MAX_CUT_TEXT_BYTES = 16 * 1024 * 1024
"""What is read of a clipboard; the rest is skipped, and the event says how much."""

_UPDATE = struct.Struct(">xH")
_RECTANGLE = struct.Struct(">HHHHi")
_COLOUR_MAP = struct.Struct(">xHH")
_CUT_TEXT = struct.Struct(">xxxi")
_COLOUR_BYTES = 6


def _framebuffer_update(engine: Engine) -> Reading[None]:
    inbox, framebuffer = engine.inbox, engine.framebuffer
    (engine.rectangles_left,) = _UPDATE.unpack((yield from inbox.read(_UPDATE.size)))
    if engine.pull and not engine.continuous:
        # Every update gets a request, even one that holds no pixels: some servers count it as
        # their answer and would never send another.
        engine.request_update()
    corner = engine.corner() if engine.asked else None
    framebuffer.begin_update()
    rectangles = 0
    while engine.rectangles_left:
        engine.check_cancelled()
        done = engine.walk.many(engine.rectangles_left)
        rectangles += done
        engine.rectangles_left -= done
        if engine.rectangles_left:
            # Cut by the end of the bytes, without pixels, or not allowed.
            yield from _rectangle(engine)
            rectangles += 1
            engine.rectangles_left -= 1
    areas = engine.damage.take()
    if corner is not None and areas and engine.is_corner(areas):
        engine.asked -= 1
        if np.array_equal(corner, engine.corner()):
            areas = ()  # Nobody is told of what came only because we asked.
    framebuffer.end_update(drawn=bool(areas))
    if areas:
        engine.emit(UpdateDone(areas, rectangles, framebuffer.generation))


def _rectangle(engine: Engine) -> Reading[None]:
    """Read one rectangle of any kind, however its bytes come."""
    x, y, width, height, number = _RECTANGLE.unpack((yield from engine.inbox.read(_RECTANGLE.size)))
    rectangle = Rectangle(x, y, width, height)
    if engine.tally is not None:
        engine.tally[number] += 1
    encoding = ENCODINGS.get(number)
    if encoding is None:
        raise engine.error(f"unknown encoding {number} of a rectangle {rectangle}")
    if not encoding.draws:
        yield from encoding.decode(engine, rectangle)
        return
    framebuffer = engine.framebuffer
    if x + width > framebuffer.width or y + height > framebuffer.height:
        size = f"{framebuffer.width}x{framebuffer.height}"
        raise engine.error(f"a rectangle {rectangle} ({encoding.name}) outside the {size} screen")
    yield from encoding.decode(engine, rectangle)


def _set_colour_map_entries(engine: Engine) -> Reading[None]:
    """Read the colours that pixels mean from now on; a true-colour format has none."""
    first, count = _COLOUR_MAP.unpack((yield from engine.inbox.read(_COLOUR_MAP.size)))
    data = yield from engine.inbox.read(count * _COLOUR_BYTES)
    engine.set_colours(first, np.frombuffer(data, ">u2").reshape(count, 3))


def _bell(engine: Engine) -> Reading[None]:
    engine.emit(Bell())
    yield from ()


def _server_cut_text(engine: Engine) -> Reading[None]:
    (length,) = _CUT_TEXT.unpack((yield from engine.inbox.read(_CUT_TEXT.size)))
    if length < 0:
        yield from engine.clipboard.read(engine, -length)
        return
    taken = min(length, MAX_CUT_TEXT_BYTES)
    text = bytes((yield from engine.inbox.read(taken))).decode("latin-1")
    yield from engine.inbox.skip(length - taken)
    engine.emit(ServerCutText(text, length - taken))


SERVER_MESSAGES: dict[int, ServerMessage] = {
    message.number: message
    for message in (
        ServerMessage(0, "FramebufferUpdate", _framebuffer_update),
        ServerMessage(1, "SetColourMapEntries", _set_colour_map_entries),
        ServerMessage(2, "Bell", _bell),
        ServerMessage(3, "ServerCutText", _server_cut_text),
        *EXTENSIONS.values(),
    )
}
