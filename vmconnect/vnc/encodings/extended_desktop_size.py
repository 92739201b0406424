"""ExtendedDesktopSize, -308: the screen's size and heads, and answers to SetDesktopSize.

Source: rfbproto, "ExtendedDesktopSize Pseudo-encoding".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.events import Resized, ResizeReason, ResizeStatus, Screen
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["EXTENDED_DESKTOP_SIZE"]

_HEAD = struct.Struct(">Bxxx")
_SCREEN = struct.Struct(">IHHHHI")


def _reason(number: int) -> ResizeReason:
    return ResizeReason(number) if number in list(ResizeReason) else ResizeReason.SERVER


def _status(number: int) -> ResizeStatus:
    return ResizeStatus(number) if number in list(ResizeStatus) else ResizeStatus.UNKNOWN


def _decode(engine: Engine, rectangle: Rectangle) -> Reading[None]:
    (count,) = _HEAD.unpack((yield from engine.inbox.read(_HEAD.size)))
    data = yield from engine.inbox.read(count * _SCREEN.size)
    screens = tuple(Screen(*fields) for fields in _SCREEN.iter_unpack(data))
    framebuffer = engine.framebuffer
    reason = _reason(rectangle.x)
    if reason is ResizeReason.THIS_CLIENT and rectangle.y:
        # Refused or forwarded: size and screens are undefined.
        engine.emit(
            Resized(
                framebuffer.width,
                framebuffer.height,
                False,
                engine.screens,
                reason,
                _status(rectangle.y),
            )
        )
        return
    changed = engine.resize(rectangle.width, rectangle.height)
    told = engine.resizable and screens == engine.screens
    engine.screens = screens
    engine.resizable = True
    if told and not changed and reason is ResizeReason.SERVER:
        # It is the answer to a request for a whole area, which has it beside its pixels.
        engine.answers += 1
        return
    engine.emit(Resized(rectangle.width, rectangle.height, changed, screens, reason))


EXTENDED_DESKTOP_SIZE = Encoding(-308, "ExtendedDesktopSize", _decode)
