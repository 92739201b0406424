"""What a person types to us, and not to the guest: ssh's escapes, at the beginning of a line.

Bytes in, what they mean out. The states, with ``~`` as the escape character:

==========  =====================================================================
LINE_START  ``~`` may begin an escape
TEXT        all is for the guest; a carriage return or line feed ends the line
ESCAPE      the next byte tells which escape it is; if none, both are for the guest
==========  =====================================================================
"""

from __future__ import annotations

import enum
import re

__all__ = ["ESCAPES", "EscapeParser", "Order"]

_LINE_END = re.compile(rb"[\r\n]")


class Order(enum.Enum):
    """What a person wants of us."""

    HANG_UP = b"."
    SUSPEND = b"\x1a"
    HELP = b"?"


ESCAPES = {
    ".": "hang up",
    "^Z": "suspend vmconnect",
    "?": "show this",
    "": "send the character itself",
}
"""What follows the escape character, and what it is for; the last is the character once more."""

_ORDERS = {order.value: order for order in Order}


class _State(enum.Enum):
    LINE_START = enum.auto()
    TEXT = enum.auto()
    ESCAPE = enum.auto()


class EscapeParser:
    """Tells what is typed for the guest from what is typed for us.

    ``character`` is the escape character, one byte; None for none.
    """

    def __init__(self, character: bytes | None = b"~"):
        self._character = character
        self._state = _State.LINE_START

    def receive(self, data: bytes) -> list[bytes | Order]:
        """Take what was typed; return bytes for the guest and orders for us, in their order."""
        if self._character is None:
            return [data] if data else []
        found: list[bytes | Order] = []
        text = bytearray()
        place = 0
        while place < len(data):
            byte = data[place : place + 1]
            if self._state is _State.TEXT:
                end = _LINE_END.search(data, place)
                stop = end.end() if end else len(data)
                text += data[place:stop]
                place = stop
                if end:
                    self._state = _State.LINE_START
                continue
            place += 1
            if self._state is _State.LINE_START and byte == self._character:
                self._state = _State.ESCAPE
            elif self._state is _State.ESCAPE and (order := _ORDERS.get(byte)):
                if text:
                    found.append(bytes(text))
                    text.clear()
                found.append(order)
                self._state = _State.LINE_START
            else:
                if self._state is _State.ESCAPE and byte != self._character:
                    text += self._character
                text += byte
                self._state = _State.LINE_START if byte in b"\r\n" else _State.TEXT
        if text:
            found.append(bytes(text))
        return found
