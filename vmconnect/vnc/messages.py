"""What a client says: each function returns the bytes of one message (RFC 6143, section 7.5)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vmconnect.vnc.events import Screen
from vmconnect.vnc.pixel_format import PixelFormat

__all__ = [
    "client_cut_text",
    "extended_key_event",
    "extended_pointer_event",
    "framebuffer_update_request",
    "key_event",
    "pointer_event",
    "set_desktop_size",
    "set_encodings",
    "set_pixel_format",
]

_SET_PIXEL_FORMAT = 0
_SET_ENCODINGS = 2
_FRAMEBUFFER_UPDATE_REQUEST = 3
_KEY_EVENT = 4
_POINTER_EVENT = 5
_MORE_BUTTONS = 0x80
_CLIENT_CUT_TEXT = 6
_SET_DESKTOP_SIZE = 251
_QEMU = 255
_QEMU_EXTENDED_KEY_EVENT = 0


def set_pixel_format(pixel_format: PixelFormat) -> bytes:
    """Ask for pixels in this format from now on (7.5.1)."""
    return struct.pack(">B3x", _SET_PIXEL_FORMAT) + pixel_format.pack()


def set_encodings(numbers: Sequence[int]) -> bytes:
    """Say which encodings we read, the preferred first (7.5.2)."""
    return struct.pack(f">BxH{len(numbers)}i", _SET_ENCODINGS, len(numbers), *numbers)


def framebuffer_update_request(incremental: bool, x: int, y: int, width: int, height: int) -> bytes:
    """Ask for an area of the screen; if incremental, for what has changed in it (7.5.3)."""
    return struct.pack(">BBHHHH", _FRAMEBUFFER_UPDATE_REQUEST, incremental, x, y, width, height)


def key_event(down: bool, keysym: int) -> bytes:
    """Press or release the key that gives an X11 keysym (7.5.4)."""
    return struct.pack(">BBxxI", _KEY_EVENT, down, keysym)


def extended_key_event(down: bool, keysym: int, scancode: int) -> bytes:
    """Press or release a key by its XT scancode (rfbproto, QEMU Extended Key Event Message).

    A scancode with the prefix 0xe0 is given as its second byte with bit 7 set.
    """
    return struct.pack(">BBHII", _QEMU, _QEMU_EXTENDED_KEY_EVENT, down, keysym, scancode)


def pointer_event(buttons: int, x: int, y: int) -> bytes:
    """Move the pointer to x, y with these buttons down, bit 0 the left one (7.5.5).

    In relative mode x and y are the motion plus 0x7fff (rfbproto, QEMU Pointer Motion Change).
    """
    return struct.pack(">BBHH", _POINTER_EVENT, buttons, x, y)


def extended_pointer_event(buttons: int, x: int, y: int) -> bytes:
    """Return `pointer_event` for more than seven buttons (rfbproto, ExtendedMouseButtons)."""
    low, high = buttons & 0x7F | _MORE_BUTTONS, buttons >> 7
    return struct.pack(">BBHHB", _POINTER_EVENT, low, x, y, high)


def client_cut_text(text: bytes) -> bytes:
    """Say what our clipboard holds, in Latin-1 (7.5.6)."""
    return struct.pack(">BxxxI", _CLIENT_CUT_TEXT, len(text)) + text


def set_desktop_size(width: int, height: int, screens: Sequence[Screen]) -> bytes:
    """Ask for another size and layout of the screen (rfbproto, SetDesktopSize)."""
    return struct.pack(">BxHHBx", _SET_DESKTOP_SIZE, width, height, len(screens)) + b"".join(
        struct.pack(">IHHHHI", s.id, s.x, s.y, s.width, s.height, s.flags) for s in screens
    )
