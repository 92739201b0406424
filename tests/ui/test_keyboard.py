"""Keys: from SDL's to RFB's."""

import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.ui.keyboard import HID_TO_XT, key_of
from vmconnect.vnc.keys import Key
from vmconnect.vnc.keys import key as named_key

# What the guest must see for each key, against the engine's own table of names.
NAMED = {
    "a": pygame.KSCAN_A,
    "z": pygame.KSCAN_Z,
    "0": pygame.KSCAN_0,
    "9": pygame.KSCAN_9,
    "enter": pygame.KSCAN_RETURN,
    "esc": pygame.KSCAN_ESCAPE,
    "tab": pygame.KSCAN_TAB,
    "f1": pygame.KSCAN_F1,
    "f10": pygame.KSCAN_F10,
    "f12": pygame.KSCAN_F12,
    "up": pygame.KSCAN_UP,
    "left": pygame.KSCAN_LEFT,
    "delete": pygame.KSCAN_DELETE,
    "home": pygame.KSCAN_HOME,
    "-": pygame.KSCAN_MINUS,
    "/": pygame.KSCAN_SLASH,
    "ctrl": pygame.KSCAN_LCTRL,
    "alt": pygame.KSCAN_LALT,
}


@pytest.mark.parametrize(("name", "usage"), NAMED.items())
def test_scancodes_agree_with_the_engine_s_names(name: str, usage: int) -> None:
    assert HID_TO_XT[usage] == named_key(name).scancode


def test_no_two_keys_of_a_pc_share_a_scancode_but_the_backslashes() -> None:
    codes = [code for usage, code in HID_TO_XT.items() if usage != pygame.KSCAN_NONUSHASH]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("usage", "keycode", "text", "key"),
    [
        (pygame.KSCAN_A, pygame.K_a, "a", Key(keysym=ord("a"), scancode=0x1E)),
        (pygame.KSCAN_A, pygame.K_a, "A", Key(keysym=ord("A"), scancode=0x1E)),
        # Ctrl-C types a control character: the keysym stays the letter's.
        (pygame.KSCAN_C, pygame.K_c, "\x03", Key(keysym=ord("c"), scancode=0x2E)),
        # A French keyboard has its A where the US one has Q.
        (pygame.KSCAN_Q, pygame.K_a, "a", Key(keysym=ord("a"), scancode=0x10)),
        (pygame.KSCAN_SEMICOLON, 0xF6, "ö", Key(keysym=0xF6, scancode=0x27)),
        (pygame.KSCAN_E, pygame.K_e, "€", Key(keysym=0x010020AC, scancode=0x12)),
        (pygame.KSCAN_RETURN, pygame.K_RETURN, "\r", Key(keysym=0xFF0D, scancode=0x1C)),
        (pygame.KSCAN_RCTRL, pygame.K_RCTRL, "", Key(keysym=0xFFE4, scancode=0x9D)),
    ],
)
def test_keysyms(usage: int, keycode: int, text: str, key: Key) -> None:
    assert key_of(usage, keycode, text) == key


def test_a_key_that_no_pc_has_is_none() -> None:
    assert key_of(0, 0, "") is None


@given(st.integers(0, 600), st.integers(0, 2**32 - 1), st.text(max_size=2))
def test_any_event_gives_a_key_that_can_be_sent(usage: int, keycode: int, text: str) -> None:
    key = key_of(usage, keycode, text)
    if key is not None:
        assert 0 <= key.scancode <= 0xFF
        assert 0 <= key.keysym <= 0xFFFFFFFF
        assert key.scancode or key.keysym
