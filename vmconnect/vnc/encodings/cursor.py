"""Cursor, -239: the pointer's picture with a mask of one bit a pixel (RFC 6143, section 7.8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import CursorShape
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.pixel_format import BYTES_PER_PIXEL

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["CURSOR", "MAX_CURSOR_SIDE", "check_size"]

MAX_CURSOR_SIDE = 1024
"""Four times the largest pointer that a graphics card draws."""


def check_size(engine: Engine, rectangle: Rectangle) -> None:
    """Raise RfbError for a pointer that is too large to be one."""
    if max(rectangle.width, rectangle.height) > MAX_CURSOR_SIDE:
        raise engine.error(f"a pointer of {rectangle.width}x{rectangle.height} pixels")


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    check_size(engine, rectangle)
    width, height = rectangle.width, rectangle.height
    pixel_bytes = width * height * BYTES_PER_PIXEL
    mask_row = (width + 7) // 8
    data = yield from engine.inbox.read(pixel_bytes + mask_row * height)
    rgba = np.empty((height, width, 4), np.uint8)
    bgrx = np.frombuffer(data, np.uint8, pixel_bytes).reshape(height, width, 4)
    rgba[:, :, :3] = bgrx[:, :, 2::-1]
    mask = np.frombuffer(data, np.uint8, mask_row * height, pixel_bytes)
    bits = np.unpackbits(mask.reshape(height, mask_row), axis=1)[:, :width]
    rgba[:, :, 3] = bits * 255
    engine.emit(CursorShape(width, height, rectangle.x, rectangle.y, rgba.tobytes()))


CURSOR = Encoding(-239, "Cursor", _decode)
