"""XCursor, -240: the pointer's picture in two colours (rfbproto, "X Cursor")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.encodings.cursor import check_size, mask_bits
from vmconnect.vnc.events import CursorShape
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["X_CURSOR"]

_COLOUR_BYTES = 6


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    check_size(engine, rectangle)
    width, height = rectangle.width, rectangle.height
    rgba = np.zeros((height, width, 4), np.uint8)
    if rectangle.pixels:
        mask_bytes = (width + 7) // 8 * height
        data = yield from engine.inbox.read(_COLOUR_BYTES + 2 * mask_bytes)
        primary, secondary = np.frombuffer(data[:_COLOUR_BYTES], np.uint8).reshape(2, 3)
        bitmap = mask_bits(data[_COLOUR_BYTES : _COLOUR_BYTES + mask_bytes], width, height)
        rgba[:, :, :3] = np.where(bitmap[:, :, None] == 1, primary, secondary)
        rgba[:, :, 3] = mask_bits(data[_COLOUR_BYTES + mask_bytes :], width, height) * 255
    engine.emit(CursorShape(width, height, rectangle.x, rectangle.y, rgba.tobytes()))


X_CURSOR = Encoding(-240, "XCursor", _decode)
