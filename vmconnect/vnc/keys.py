"""Keys by name and by character: X11 keysyms and XT scancodes.

Scancodes are XT set 1 as rfbproto's QEMU extended key event has them: a code with the prefix
0xe0 is its second byte with bit 7 set. Keysyms are those of X11's keysymdef.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.errors import TargetError

__all__ = ["NAMED", "SHIFT", "Key", "Stroke", "key", "name_of", "stroke"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key: what it means (X11 keysym) and where it is (XT scancode); 0 is not known."""

    keysym: int = 0
    scancode: int = 0


@dataclass(frozen=True, slots=True)
class Stroke:
    """How a character is typed: a key, and whether Shift is held."""

    key: Key
    shift: bool


_LAST_LATIN_1 = 0xFF
_LAST_CHARACTER = 0x10FFFF
_UNICODE_KEYSYM = 0x0100_0000

SHIFT = Key(0xFFE1, 0x2A)

NAMED: dict[str, Key] = {
    "esc": Key(0xFF1B, 0x01),
    "backspace": Key(0xFF08, 0x0E),
    "tab": Key(0xFF09, 0x0F),
    "enter": Key(0xFF0D, 0x1C),
    "space": Key(0x20, 0x39),
    "shift": SHIFT,
    "rshift": Key(0xFFE2, 0x36),
    "ctrl": Key(0xFFE3, 0x1D),
    "rctrl": Key(0xFFE4, 0x9D),
    "alt": Key(0xFFE9, 0x38),
    "altgr": Key(0xFE03, 0xB8),
    "super": Key(0xFFEB, 0xDB),
    "rsuper": Key(0xFFEC, 0xDC),
    "menu": Key(0xFF67, 0xDD),
    "capslock": Key(0xFFE5, 0x3A),
    "numlock": Key(0xFF7F, 0x45),
    "scrolllock": Key(0xFF14, 0x46),
    "insert": Key(0xFF63, 0xD2),
    "delete": Key(0xFFFF, 0xD3),
    "home": Key(0xFF50, 0xC7),
    "end": Key(0xFF57, 0xCF),
    "pageup": Key(0xFF55, 0xC9),
    "pagedown": Key(0xFF56, 0xD1),
    "left": Key(0xFF51, 0xCB),
    "up": Key(0xFF52, 0xC8),
    "right": Key(0xFF53, 0xCD),
    "down": Key(0xFF54, 0xD0),
    # rfbproto wants these two whatever modifiers are held.
    "print": Key(0xFF61, 0x54),
    "pause": Key(0xFF13, 0xC6),
    **{f"f{n}": Key(0xFFBD + n, 0x3A + n) for n in range(1, 11)},
    "f11": Key(0xFFC8, 0x57),
    "f12": Key(0xFFC9, 0x58),
    "kp_multiply": Key(0xFFAA, 0x37),
    "kp_subtract": Key(0xFFAD, 0x4A),
    "kp_add": Key(0xFFAB, 0x4E),
    "kp_divide": Key(0xFFAF, 0xB5),
    "kp_enter": Key(0xFF8D, 0x9C),
    "kp_decimal": Key(0xFFAE, 0x53),
    **{
        f"kp_{digit}": Key(0xFFB0 + digit, scancode)
        for digit, scancode in enumerate(bytes.fromhex("524f50514b4c4d474849"))
    },
}

_NAMES = {named.keysym: name for name, named in NAMED.items()}

_ALIASES = {
    "escape": "esc",
    "return": "enter",
    "control": "ctrl",
    "lctrl": "ctrl",
    "lshift": "shift",
    "lalt": "alt",
    "ralt": "altgr",
    "win": "super",
    "meta": "super",
    "caps": "capslock",
    "ins": "insert",
    "del": "delete",
    "pgup": "pageup",
    "pgdn": "pagedown",
    "sysrq": "print",
    "break": "pause",
}

# The US layout, a row of keys at a time: first scancode, then what each gives alone and shifted.
_ROWS = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'),
    (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
)

_STROKES: dict[str, Stroke] = {
    **{
        character: Stroke(Key(ord(character), first + place), shift)
        for first, plain, shifted in _ROWS
        for shift, characters in ((False, plain), (True, shifted))
        for place, character in enumerate(characters)
    },
    " ": Stroke(NAMED["space"], False),
    "\n": Stroke(NAMED["enter"], False),
    "\r": Stroke(NAMED["enter"], False),
    "\t": Stroke(NAMED["tab"], False),
    "\b": Stroke(NAMED["backspace"], False),
    "\x1b": Stroke(NAMED["esc"], False),
}


def stroke(character: str) -> Stroke:
    """Return how to type a character on a US keyboard.

    A character that is not on it has a key with a keysym and no scancode, or no keysym either if
    it is none that can be typed.
    """
    known = _STROKES.get(character)
    if known is not None:
        return known
    point = ord(character)
    if not character.isprintable():
        return Stroke(Key(), False)
    return Stroke(Key(point if point <= _LAST_LATIN_1 else _UNICODE_KEYSYM | point), False)


def key(name: str | Key) -> Key:
    """Return a key by its name ("enter", "f1", "ctrl") or its character ("a", "é").

    Raises TargetError for a name that no key has.
    """
    if isinstance(name, Key):
        return name
    if len(name) == 1:
        found = stroke(name).key
    else:
        lower = name.lower()
        found = NAMED.get(_ALIASES.get(lower, lower), Key())
    if found == Key():
        raise TargetError(f"no key is called {name!r}", hint="keys are " + ", ".join(NAMED))
    return found


def name_of(pressed: Key) -> str:
    """Return what `key` takes for that key: a character where it types one, else its name."""
    keysym = pressed.keysym
    if keysym in _NAMES:
        return _NAMES[keysym]
    point = keysym & ~_UNICODE_KEYSYM if keysym > _LAST_LATIN_1 else keysym
    if 0x20 < point <= _LAST_CHARACTER and (keysym <= _LAST_LATIN_1 or keysym & _UNICODE_KEYSYM):
        return chr(point)
    return f"scancode {pressed.scancode:#x}" if pressed.scancode else f"keysym {keysym:#x}"
