"""What rectangles may hold: one encoding a file, found through one table.

`ENCODINGS`
    what we read by number, in the order in which we offer it to servers
`Encoding`
    a number, a name and a step that reads one rectangle
`Rectangle`
    where a rectangle lies
`QUALITIES`
    numbers that only say how lossy a server may be

Rectangles of pixels seldom come here: `vmconnect.vnc.walk` takes them by the thousand, and only
those that are cut by the end of the bytes, or not as they should be, one by one through their
encoding's ``decode``. Beside it stands what draws them where no kernel was compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmconnect.vnc.encodings.audio import AUDIO
from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.encodings.copyrect import COPYRECT
from vmconnect.vnc.encodings.cursor import CURSOR
from vmconnect.vnc.encodings.cursor_with_alpha import CURSOR_WITH_ALPHA
from vmconnect.vnc.encodings.desktop_name import DESKTOP_NAME
from vmconnect.vnc.encodings.desktop_size import DESKTOP_SIZE
from vmconnect.vnc.encodings.extended_buttons import EXTENDED_BUTTONS
from vmconnect.vnc.encodings.extended_desktop_size import EXTENDED_DESKTOP_SIZE
from vmconnect.vnc.encodings.extended_key import EXTENDED_KEY
from vmconnect.vnc.encodings.h264 import H264
from vmconnect.vnc.encodings.hextile import HEXTILE
from vmconnect.vnc.encodings.jpeg import JPEG
from vmconnect.vnc.encodings.last_rect import LAST_RECT
from vmconnect.vnc.encodings.led_state import LED_STATE
from vmconnect.vnc.encodings.pointer_motion import POINTER_MOTION
from vmconnect.vnc.encodings.pointer_position import POINTER_POSITION
from vmconnect.vnc.encodings.raw import RAW
from vmconnect.vnc.encodings.rre import CORRE, RRE
from vmconnect.vnc.encodings.tight import TIGHT, TIGHT_PNG
from vmconnect.vnc.encodings.trle import TRLE
from vmconnect.vnc.encodings.vmware import (
    VMWARE_CURSOR,
    VMWARE_LED_STATE,
    VMWARE_POINTER,
    WMVI,
)
from vmconnect.vnc.encodings.x_cursor import X_CURSOR
from vmconnect.vnc.encodings.zlib import ZLIB
from vmconnect.vnc.encodings.zrle import ZRLE
from vmconnect.vnc.encodings.zywrle import ZYWRLE, wavelet_level
from vmconnect.vnc.extensions import OFFERS

__all__ = [
    "COMPRESSIONS",
    "ENCODINGS",
    "FINE_QUALITIES",
    "MOST_OFFERED",
    "OFFERED",
    "QUALITIES",
    "Encoding",
    "Rectangle",
    "coarse_quality",
    "wavelet_level",
]

QUALITIES = range(-32, -22)
"""The pseudo-encodings that ask for a quality of 0 to 9 (rfbproto, "JPEG Quality Level")."""

FINE_QUALITIES = range(-512, -411)
"""Those that ask for a quality of 0 to 100 (rfbproto, "JPEG Fine-Grained Quality Level")."""

COMPRESSIONS = range(-256, -246)
"""Those that ask for a compression level of 0 to 9 (rfbproto, "Compression Level")."""

ENCODINGS: dict[int, Encoding] = {
    encoding.number: encoding
    for encoding in (
        COPYRECT,
        RAW,
        TIGHT,
        ZRLE,
        ZLIB,
        HEXTILE,
        TRLE,
        RRE,
        CORRE,
        TIGHT_PNG,
        ZYWRLE,
        JPEG,
        H264,
        EXTENDED_DESKTOP_SIZE,
        DESKTOP_SIZE,
        LAST_RECT,
        CURSOR_WITH_ALPHA,
        CURSOR,
        EXTENDED_KEY,
        POINTER_MOTION,
        DESKTOP_NAME,
        LED_STATE,
        VMWARE_CURSOR,
        X_CURSOR,
        VMWARE_POINTER,
        POINTER_POSITION,
        VMWARE_LED_STATE,
        WMVI,
        AUDIO,
        EXTENDED_BUTTONS,
    )
}

_SUPERSEDED = {encoding.number for encoding in (CORRE, TIGHT_PNG, ZYWRLE, JPEG)}
# Whoever has one of them has a better one: Hextile, Tight with all methods or with quality, ZRLE.

_NOT_OFFERED = _SUPERSEDED | {H264.number}
# H.264 always loses something: who allows that offers it (`vmconnect.vnc.preference.Choice`).

OFFERED = (*(number for number in ENCODINGS if number not in _NOT_OFFERED), *OFFERS)
"""What a server is told by default: those above that no other makes needless, and the extensions'
messages."""

MOST_OFFERED = 32
"""How many numbers a server is told at most: neatvnc 0.5 loses the thread after more."""


def coarse_quality(numbers: Sequence[int]) -> int | None:
    """Return the quality that encodings ask for, 0 to 9; the last counts, as for servers."""
    asked = [number - QUALITIES.start for number in numbers if number in QUALITIES]
    return asked[-1] if asked else None
