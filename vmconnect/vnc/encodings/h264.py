"""Open H.264, 50: a piece of an H.264 stream (rfbproto, "Open H.264 Encoding").

Each rectangle, by its place and size, has a stream of its own (`vmconnect.vnc.h264_streams`),
which goes on from one update to the next, until the server begins it anew.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.errors import ClosedError
from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.h264_streams import H264Error, split_frames, words_of
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["H264", "MAX_H264_BYTES"]

MAX_H264_BYTES = 16 * 1024 * 1024
"""What one rectangle may bring at once."""

_HEAD = struct.Struct(">II")
_RESET, _RESET_ALL = 1, 2


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    inbox = engine.inbox
    yield from inbox.need(_HEAD.size)
    length, flags = _HEAD.unpack(inbox.peek(_HEAD.size))
    if length > MAX_H264_BYTES:
        raise engine.error(f"{length} bytes of H.264 for a rectangle {rectangle}")
    yield from inbox.need(_HEAD.size + length)
    data = bytes(inbox.peek(_HEAD.size + length)[_HEAD.size :])
    if flags & _RESET_ALL:
        engine.h264_streams.clear()
    elif flags & _RESET:
        engine.h264_streams.drop(rectangle)
    try:
        words = _last_picture(engine, rectangle, data) if data else None
    except H264Error as error:
        raise engine.error(f"a rectangle {rectangle} (H264): {error}") from error.__cause__
    inbox.consume(_HEAD.size + length)
    if words is None:
        return
    x, y = rectangle.x, rectangle.y
    height, width = words.shape
    engine.framebuffer.pixels[y : y + height, x : x + width] = words
    engine.damage.add(x, y, width, height)


def _last_picture(engine: Engine, rectangle: Rectangle, data: bytes) -> Pixels | None:
    """Decode all frames and return the words of the last picture, cut to the rectangle.

    There is none before a stream has begun, and where the encoder has a delay. One that is
    smaller than the rectangle, which rfbproto forbids, is not shown, as in TigerVNC.
    """
    stream = engine.h264_streams.get(rectangle)
    picture = None
    for frame in split_frames(data):
        if engine.cancelled:
            raise ClosedError("the console was closed")
        picture = stream.decode(frame) or picture
    if picture is None or picture.width < rectangle.width or picture.height < rectangle.height:
        return None
    return words_of(picture, engine.layout)[: rectangle.height, : rectangle.width]


H264 = Encoding(50, "H264", _decode, draws=True)
