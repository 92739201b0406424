"""Keyboard and mouse: what they send."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.errors import TargetError, UnsupportedError
from vmconnect.vnc.events import LedState
from vmconnect.vnc.keyboard import Keyboard
from vmconnect.vnc.keys import NAMED, Key, key, stroke
from vmconnect.vnc.messages import extended_key_event, key_event, pointer_event
from vmconnect.vnc.mouse import Mouse

from .wire import connected

CTRL, ALT, DELETE = (0xFFE3, 0x1D), (0xFFE9, 0x38), (0xFFFF, 0xD3)
SHIFT = (0xFFE1, 0x2A)
STILL = 0x7FFF


class Recorder:
    """A keyboard and a mouse, and what they sent."""

    def __init__(self, scancodes: bool = True, absolute: bool = True) -> None:
        self.engine = connected(640, 480)
        self.engine.scancodes = scancodes
        self.engine.absolute = absolute
        self.sent: list[bytes] = []
        self.keyboard = Keyboard(self.engine, self._note)
        self.mouse = Mouse(self.engine, self._note)

    def _note(self, data: bytes, _what: str) -> None:
        self.sent.append(data)


def test_a_chord_is_released_in_reverse_order() -> None:
    recorder = Recorder()
    recorder.keyboard.press("ctrl", "alt", "delete")
    order = [
        (True, CTRL),
        (True, ALT),
        (True, DELETE),
        (False, DELETE),
        (False, ALT),
        (False, CTRL),
    ]
    assert recorder.sent == [extended_key_event(down, *codes) for down, codes in order]
    assert recorder.keyboard.held == ()


def test_keysyms_where_the_server_takes_no_scancodes() -> None:
    recorder = Recorder(scancodes=False)
    recorder.keyboard.press("ctrl", "c")
    events = (True, 0xFFE3), (True, 0x63), (False, 0x63), (False, 0xFFE3)
    assert recorder.sent == [key_event(*event) for event in events]


def test_a_key_comes_up_as_it_went_down() -> None:
    recorder = Recorder(scancodes=False)
    recorder.keyboard.down("a")
    recorder.engine.scancodes = True
    recorder.keyboard.up("a")
    recorder.keyboard.press("a")
    assert recorder.sent == [
        key_event(True, 0x61),
        key_event(False, 0x61),
        extended_key_event(True, 0x61, 0x1E),
        extended_key_event(False, 0x61, 0x1E),
    ]


def test_hold_lets_go_whatever_happens() -> None:
    recorder = Recorder()
    with pytest.raises(ZeroDivisionError), recorder.keyboard.hold("ctrl", "alt"):
        assert recorder.keyboard.held == (Key(*CTRL), Key(*ALT))
        _ = 1 // 0
    assert recorder.sent[2:] == [extended_key_event(False, *ALT), extended_key_event(False, *CTRL)]


def test_release_lets_go_of_all() -> None:
    recorder = Recorder()
    recorder.keyboard.down("ctrl")
    recorder.keyboard.down("alt")
    recorder.keyboard.down("alt")
    recorder.keyboard.release()
    assert recorder.sent[3:] == [extended_key_event(False, *ALT), extended_key_event(False, *CTRL)]


def test_typing_holds_shift() -> None:
    recorder = Recorder()
    recorder.keyboard.type("a:\n", interval=0)
    assert recorder.sent == [
        extended_key_event(True, 0x61, 0x1E),
        extended_key_event(False, 0x61, 0x1E),
        extended_key_event(True, *SHIFT),
        extended_key_event(True, 0x3A, 0x27),
        extended_key_event(False, 0x3A, 0x27),
        extended_key_event(False, *SHIFT),
        extended_key_event(True, 0xFF0D, 0x1C),
        extended_key_event(False, 0xFF0D, 0x1C),
    ]


def test_typing_minds_caps_lock() -> None:
    recorder = Recorder()
    recorder.engine.leds = LedState(scroll_lock=False, num_lock=False, caps_lock=True)
    recorder.keyboard.type("aA1", interval=0)
    assert recorder.sent == [
        extended_key_event(True, *SHIFT),
        extended_key_event(True, 0x61, 0x1E),
        extended_key_event(False, 0x61, 0x1E),
        extended_key_event(False, *SHIFT),
        extended_key_event(True, 0x41, 0x1E),
        extended_key_event(False, 0x41, 0x1E),
        extended_key_event(True, 0x31, 0x02),
        extended_key_event(False, 0x31, 0x02),
    ]


def test_what_cannot_be_typed_is_told_before_anything_is() -> None:
    recorder = Recorder()
    with pytest.raises(UnsupportedError, match="'é'"):
        recorder.keyboard.type("abcé")
    assert recorder.sent == []
    recorder.engine.scancodes = False
    recorder.keyboard.type("é€", interval=0)
    points = 0xE9, 0x010020AC
    assert recorder.sent == [key_event(down, p) for p in points for down in (True, False)]
    with pytest.raises(UnsupportedError, match="x00"):
        recorder.keyboard.type("\0")


def test_a_key_without_keysym_needs_scancodes() -> None:
    recorder = Recorder(scancodes=False)
    with pytest.raises(UnsupportedError, match="0x79"):
        recorder.keyboard.down(Key(scancode=0x79))
    assert recorder.keyboard.held == ()


@pytest.mark.parametrize("name", ["", "ctl", "f13", "\0"])
def test_no_such_key(name: str) -> None:
    with pytest.raises(TargetError, match="no key"):
        key(name)


def test_names_are_forgiving() -> None:
    assert key("Ctrl") == key("control") == NAMED["ctrl"]
    assert key("Return") == key("enter") == key("\n")
    assert key("A") == Key(0x41, 0x1E)
    assert key("F12") == Key(0xFFC9, 0x58)


def test_no_two_keys_share_a_place() -> None:
    places = [named.scancode for named in NAMED.values()]
    places += {stroke(chr(c)).key.scancode for c in range(0x21, 0x7F)} - {0}
    assert len(places) == len(set(places))


@given(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
def test_every_ascii_character_can_be_typed(character: str) -> None:
    struck = stroke(character)
    assert struck.key.scancode
    assert struck.key.keysym == ord(character)
    if character.isalpha():
        assert struck.shift == character.isupper()


def test_positions_are_kept_within_the_screen() -> None:
    recorder = Recorder()
    for position in ((3, 4), (-1, 9999)):
        recorder.mouse.move(*position)
    assert recorder.sent == [pointer_event(0, 3, 4), pointer_event(0, 0, 479)]
    recorder.mouse.move_by(10, -9)
    assert recorder.sent[2:] == [pointer_event(0, 10, 470)]


def test_buttons() -> None:
    recorder = Recorder()
    recorder.mouse.move(5, 6)
    recorder.mouse.click()
    recorder.mouse.down("right")
    recorder.mouse.down(2)
    recorder.mouse.release()
    masks = 0, 1, 0, 4, 6, 0
    assert recorder.sent == [pointer_event(mask, 5, 6) for mask in masks]
    with pytest.raises(TargetError, match="no mouse button"):
        recorder.mouse.down("fourth")
    with pytest.raises(TargetError, match="no mouse button"):
        recorder.mouse.down(4)


def test_the_wheel() -> None:
    recorder = Recorder()
    recorder.mouse.scroll(y=2)
    recorder.mouse.scroll(-1, -1)
    masks = 8, 0, 8, 0, 16, 0, 32, 0
    assert recorder.sent == [pointer_event(mask, 0, 0) for mask in masks]


def test_relative_motion() -> None:
    recorder = Recorder(absolute=False)
    recorder.mouse.move(10, 20)
    recorder.mouse.move(7, 25)
    recorder.mouse.move_by(-100, 50)
    recorder.mouse.down()
    motions = (0, 10, 20), (0, -3, 5), (0, -100, 50), (1, 0, 0)
    assert recorder.sent == [pointer_event(b, STILL + x, STILL + y) for b, x, y in motions]


@given(st.integers(-(1 << 18), 1 << 18), st.integers(-(1 << 18), 1 << 18))
def test_any_motion_arrives(dx: int, dy: int) -> None:
    recorder = Recorder(absolute=False)
    recorder.mouse.move_by(dx, dy)
    total_x = sum(int.from_bytes(event[2:4]) - STILL for event in recorder.sent)
    total_y = sum(int.from_bytes(event[4:6]) - STILL for event in recorder.sent)
    assert (total_x, total_y) == (dx, dy)


# X11's names of the characters that do not name themselves (keysymdef.h).
CHARACTERS = """
    ! exclam  @ at  # numbersign  $ dollar  % percent  ^ asciicircum  & ampersand  * asterisk
    ( parenleft  ) parenright  - minus  _ underscore  = equal  + plus
    [ bracketleft  ] bracketright  { braceleft  } braceright  ; semicolon  : colon
    ' apostrophe  " quotedbl  ` grave  ~ asciitilde  \\ backslash  | bar
    , comma  < less  . period  > greater  / slash  ? question
"""
PAIRS = CHARACTERS.split()
NAMES = {" ": "space", **dict(zip(PAIRS[::2], PAIRS[1::2], strict=True))}
KEYS = {
    "esc": "Escape", "backspace": "BackSpace", "tab": "Tab", "enter": "Return",
    "shift": "Shift_L", "rshift": "Shift_R", "ctrl": "Control_L", "rctrl": "Control_R",
    "alt": "Alt_L", "capslock": "Caps_Lock", "numlock": "Num_Lock", "scrolllock": "Scroll_Lock",
    "insert": "Insert", "delete": "Delete", "home": "Home", "end": "End", "pageup": "Prior",
    "pagedown": "Next", "left": "Left", "up": "Up", "right": "Right", "down": "Down",
    "print": "Print", "super": "Super_L", "rsuper": "Super_R", "menu": "Menu",
    **{f"f{n}": f"F{n}" for n in range(1, 13)},
    **{f"kp_{n}": f"KP_{n}" for n in range(10)},
    "kp_multiply": "KP_Multiply", "kp_subtract": "KP_Subtract", "kp_add": "KP_Add",
    "kp_divide": "KP_Divide", "kp_enter": "KP_Enter", "kp_decimal": "KP_Decimal",
}  # fmt: skip
KEYMAP = Path("/usr/share/qemu/keymaps/en-us")


@pytest.mark.skipif(not KEYMAP.exists(), reason="needs QEMU's keymaps (apt: qemu-system-data)")
def test_places_are_those_of_qemu() -> None:
    theirs: dict[str, tuple[int, bool]] = {}
    for line in KEYMAP.read_text().splitlines():
        name, *rest = line.split() or ["#"]
        if rest and not name.startswith("#"):
            theirs.setdefault(name, (int(rest[0], 16), "shift" in rest))
    compared = 0
    for character in map(chr, range(0x20, 0x7F)):
        name = NAMES.get(character, character)
        if name in theirs:
            struck = stroke(character)
            assert (struck.key.scancode, struck.shift) == theirs[name], character
            compared += 1
    assert compared > 90
    compared = 0
    for ours, name in KEYS.items():
        if name in theirs:
            assert NAMED[ours].scancode == theirs[name][0], ours
            compared += 1
    assert compared > 50
