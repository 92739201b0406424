"""VMware's pseudo-encodings, 0x574d5664 and on, which other servers have taken over.

The pointer's picture and place, the keyboard's lights, and WMVi: another pixel format, which
QEMU tells when its guest changes its mode (QEMU, ui/vnc.c).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.encodings.cursor import check_size, rgb_of
from vmconnect.vnc.events import CursorShape, LedState, PointerMoved
from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.pixel_format import PIXEL_FORMAT_BYTES, PixelFormat

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["VMWARE_CURSOR", "VMWARE_LED_STATE", "VMWARE_POINTER", "WMVI"]

_U32 = struct.Struct(">I")
_MASKS, _ALPHA = 0, 1


def _cursor(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    check_size(engine, rectangle)
    width, height = rectangle.width, rectangle.height
    kind = (yield from engine.inbox.read(2))[0]
    if kind == _ALPHA:
        picture = bytes((yield from engine.inbox.read(rectangle.pixels * 4)))
    elif kind == _MASKS:
        length = rectangle.pixels * engine.layout.pixel_bytes
        data = yield from engine.inbox.read(2 * length)
        keep = rgb_of(engine.layout, data[:length])
        invert = rgb_of(engine.layout, data[length:])
        opaque = ~keep.any(axis=1)
        rgba = np.zeros((rectangle.pixels, 4), np.uint8)
        rgba[opaque, :3] = invert[opaque]
        # What inverts the screen below is drawn black: a pointer that can be seen.
        rgba[opaque | invert.any(axis=1), 3] = 255
        picture = rgba.tobytes()
    else:
        raise engine.error(f"a pointer of kind {kind}")
    engine.emit(CursorShape(width, height, rectangle.x, rectangle.y, picture))


def _pointer(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    engine.emit(PointerMoved(rectangle.x, rectangle.y))
    yield from ()


def _led_state(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    (state,) = _U32.unpack((yield from engine.inbox.read(_U32.size)))
    engine.leds = LedState(bool(state & 1), bool(state & 2), bool(state & 4))
    engine.emit(engine.leds)


def _wmvi(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    data = yield from engine.inbox.read(PIXEL_FORMAT_BYTES)
    engine.change_format(PixelFormat.unpack(data))


VMWARE_CURSOR = Encoding(0x574D5664, "VMware cursor", _cursor)
VMWARE_POINTER = Encoding(0x574D5666, "VMware pointer position", _pointer)
VMWARE_LED_STATE = Encoding(0x574D5668, "VMware LED state", _led_state)
WMVI = Encoding(0x574D5669, "WMVi", _wmvi)
