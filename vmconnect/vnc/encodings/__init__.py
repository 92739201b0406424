"""What rectangles may hold: one encoding a file, found through one table.

`ENCODINGS`
    what we read by number, in the order in which we offer it to servers
`Encoding`
    a number, a name and a step that reads one rectangle
`Rectangle`
    where a rectangle lies

Small rectangles of pixels seldom come here: `vmconnect.vnc.walk` draws them by the thousand. A
new encoding that the walk knows as well is listed here all the same, for the rectangle that is
cut by the end of the buffer.
"""

from __future__ import annotations

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.encodings.copyrect import COPYRECT
from vmconnect.vnc.encodings.cursor import CURSOR
from vmconnect.vnc.encodings.cursor_with_alpha import CURSOR_WITH_ALPHA
from vmconnect.vnc.encodings.desktop_name import DESKTOP_NAME
from vmconnect.vnc.encodings.desktop_size import DESKTOP_SIZE
from vmconnect.vnc.encodings.extended_desktop_size import EXTENDED_DESKTOP_SIZE
from vmconnect.vnc.encodings.extended_key import EXTENDED_KEY
from vmconnect.vnc.encodings.last_rect import LAST_RECT
from vmconnect.vnc.encodings.led_state import LED_STATE
from vmconnect.vnc.encodings.pointer_motion import POINTER_MOTION
from vmconnect.vnc.encodings.raw import RAW

__all__ = ["ENCODINGS", "Encoding", "Rectangle"]

ENCODINGS: dict[int, Encoding] = {
    encoding.number: encoding
    for encoding in (
        COPYRECT,
        RAW,
        EXTENDED_DESKTOP_SIZE,
        DESKTOP_SIZE,
        LAST_RECT,
        CURSOR_WITH_ALPHA,
        CURSOR,
        EXTENDED_KEY,
        POINTER_MOTION,
        DESKTOP_NAME,
        LED_STATE,
    )
}
