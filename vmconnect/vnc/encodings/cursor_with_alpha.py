"""CursorWithAlpha, -314: the pointer's picture with transparency (rfbproto, "Cursor With Alpha").

The picture is in an encoding of its own; we read Raw, which every server of it sends.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.encodings.cursor import check_size
from vmconnect.vnc.encodings.raw import RAW
from vmconnect.vnc.events import CursorShape
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["CURSOR_WITH_ALPHA"]

_ENCODING = struct.Struct(">i")


def _straight(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Take the alpha out of the colours, unless it is not in them.

    The specification multiplies it in; QEMU before 10 did not. A colour that is brighter than
    its alpha tells.
    """
    colours, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    if (colours > alpha).any():
        return rgba
    straight = rgba.copy()
    wide = colours.astype(np.uint16) * 255
    straight[:, :, :3] = wide // np.maximum(alpha, 1)
    return straight


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    check_size(engine, rectangle)
    width, height = rectangle.width, rectangle.height
    (number,) = _ENCODING.unpack((yield from engine.inbox.read(_ENCODING.size)))
    if number != RAW.number:
        raise engine.error(f"a pointer in encoding {number}; only Raw is read")
    data = yield from engine.inbox.read(width * height * 4)
    rgba = np.frombuffer(data, np.uint8).reshape(height, width, 4)
    if engine.blue_first_cursors:
        rgba = rgba[:, :, [2, 1, 0, 3]]
    picture = _straight(rgba).tobytes()
    engine.emit(CursorShape(width, height, rectangle.x, rectangle.y, picture))


CURSOR_WITH_ALPHA = Encoding(-314, "CursorWithAlpha", _decode)
