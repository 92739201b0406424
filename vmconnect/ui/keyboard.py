"""From SDL's key events to the keys that RFB sends.

SDL names a key by its place: a USB HID usage (HID Usage Tables, section 10), whatever the layout
printed on it. Servers that take scancodes get that place as an XT set 1 code; the others get the
X11 keysym of what the key means here.
"""

from __future__ import annotations

from vmconnect.vnc.keys import Key

__all__ = ["HID_TO_XT", "key_of"]

# HID usages in runs; 0xe0-prefixed scancodes have bit 7 set, as rfbproto's QEMU Extended Key
# Event message writes them.
HID_TO_XT: dict[int, int] = {
    # a to z
    **dict(
        zip(
            range(4, 30),
            bytes.fromhex("1e302e2012212223172425263231181910131f14162f112d152c"),
            strict=True,
        )
    ),
    # 1 to 9, 0
    **{30 + place: 0x02 + place for place in range(10)},
    # Enter Esc Backspace Tab Space - = [ ] \ # ; ' ` , . / CapsLock
    **dict(zip(range(40, 58), bytes.fromhex("1c010e0f390c0d1a1b2b2b2728293334353a"), strict=True)),
    # F1 to F10, F11, F12
    **{58 + place: 0x3B + place for place in range(10)},
    68: 0x57,
    69: 0x58,
    # PrintScreen ScrollLock Pause Insert Home PageUp Delete End PageDown Right Left Down Up
    **dict(zip(range(70, 83), bytes.fromhex("b746c6d2c7c9d3cfd1cdcbd0c8"), strict=True)),
    # NumLock, keypad / * - + Enter 1 to 9 0 .
    **dict(zip(range(83, 100), bytes.fromhex("45b5374a4e9c4f50514b4c4d4748495253"), strict=True)),
    # The key beside the left Shift, Menu, keypad =
    100: 0x56,
    101: 0xDD,
    103: 0x59,
    # Japanese Ro Katakana Yen Henkan Muhenkan
    135: 0x73,
    136: 0x70,
    137: 0x7D,
    138: 0x79,
    139: 0x7B,
    # Left and right Ctrl Shift Alt Super
    **dict(zip(range(224, 232), bytes.fromhex("1d2a38db9d36b8dc"), strict=True)),
}

# Keysyms of the keys that print nothing (X11's keysymdef.h), by HID usage.
_KEYSYMS: dict[int, int] = {
    40: 0xFF0D,
    41: 0xFF1B,
    42: 0xFF08,
    43: 0xFF09,
    57: 0xFFE5,
    **{58 + place: 0xFFBE + place for place in range(12)},
    70: 0xFF61,
    71: 0xFF14,
    72: 0xFF13,
    73: 0xFF63,
    74: 0xFF50,
    75: 0xFF55,
    76: 0xFFFF,
    77: 0xFF57,
    78: 0xFF56,
    79: 0xFF53,
    80: 0xFF51,
    81: 0xFF54,
    82: 0xFF52,
    83: 0xFF7F,
    84: 0xFFAF,
    85: 0xFFAA,
    86: 0xFFAD,
    87: 0xFFAB,
    88: 0xFF8D,
    101: 0xFF67,
    224: 0xFFE3,
    225: 0xFFE1,
    226: 0xFFE9,
    227: 0xFFEB,
    228: 0xFFE4,
    229: 0xFFE2,
    230: 0xFFEA,
    231: 0xFFEC,
}

_LAST_LATIN_1 = 0xFF
_UNICODE_KEYSYM = 0x0100_0000
_LAST_CHARACTER = 0x10FFFF


def key_of(usage: int, keycode: int, text: str) -> Key | None:
    """Return the key of an SDL key event, or None for one that no PC keyboard has.

    ``usage`` is the event's scancode, ``keycode`` SDL's layout-dependent key, ``text`` the
    character it typed, if any.
    """
    scancode = HID_TO_XT.get(usage, 0)
    keysym = _KEYSYMS.get(usage) or _character_keysym(keycode, text)
    return Key(keysym=keysym, scancode=scancode) if scancode or keysym else None


def _character_keysym(keycode: int, text: str) -> int:
    """Return the keysym of a character; 0 if the key types none."""
    # With Ctrl held the text is a control character, and the key itself says which letter.
    point = ord(text) if len(text) == 1 and text.isprintable() else keycode
    if not (0x20 <= point <= _LAST_CHARACTER and chr(point).isprintable()):
        return 0
    return point if point <= _LAST_LATIN_1 else _UNICODE_KEYSYM | point
