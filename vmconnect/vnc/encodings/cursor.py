"""Cursor, -239: the pointer's picture with a mask of one bit a pixel (RFC 6143, section 7.8.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import CursorShape
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.layout import Layout

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["CURSOR", "MAX_CURSOR_SIDE", "check_size", "mask_bits", "rgb_of"]

MAX_CURSOR_SIDE = 1024
"""Four times the largest pointer that a graphics card draws."""


def check_size(engine: Engine, rectangle: Rectangle) -> None:
    """Raise RfbError for a pointer that is too large to be one."""
    if max(rectangle.width, rectangle.height) > MAX_CURSOR_SIDE:
        raise engine.error(f"a pointer of {rectangle.width}x{rectangle.height} pixels")


def mask_bits(data: memoryview, width: int, height: int) -> NDArray[np.uint8]:
    """Return a mask's bits as (height, width) zeros and ones; each row begins with a byte."""
    rows = np.frombuffer(data, np.uint8).reshape(height, (width + 7) // 8)
    return np.unpackbits(rows, axis=1)[:, :width]


def rgb_of(layout: Layout, data: memoryview) -> NDArray[np.uint8]:
    """Return PIXELs as rows of red, green, blue."""
    words = layout.pixels(data)
    channels = [words >> np.uint32(shift) & np.uint32(255) for shift in layout.shifts]
    return np.stack(channels, -1).astype(np.uint8)


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    check_size(engine, rectangle)
    width, height = rectangle.width, rectangle.height
    pixel_bytes = width * height * engine.layout.pixel_bytes
    data = yield from engine.inbox.read(pixel_bytes + (width + 7) // 8 * height)
    rgba = np.empty((height, width, 4), np.uint8)
    rgba[:, :, :3] = rgb_of(engine.layout, data[:pixel_bytes]).reshape(height, width, 3)
    rgba[:, :, 3] = mask_bits(data[pixel_bytes:], width, height) * 255
    engine.emit(CursorShape(width, height, rectangle.x, rectangle.y, rgba.tobytes()))


CURSOR = Encoding(-239, "Cursor", _decode)
