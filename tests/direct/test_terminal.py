"""Terminal modes, against RFC 4254's table and a real terminal."""

from __future__ import annotations

import os
import pty
import struct
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.direct.terminal import DEFAULT_MODES, encode_modes


@pytest.fixture
def terminal() -> Iterator[int]:
    controller, terminal = pty.openpty()
    yield terminal
    os.close(terminal)
    os.close(controller)


def decoded(data: bytes) -> dict[int, int]:
    """Read modes as RFC 4254, section 8, has them."""
    found = {}
    place = 0
    while data[place]:
        found[data[place]] = struct.unpack_from(">I", data, place + 1)[0]
        place += 5
    assert place == len(data) - 1
    return found


def test_a_real_terminal_s(terminal: int) -> None:
    modes = decoded(encode_modes(termios.tcgetattr(terminal)))
    characters = {1: 3, 2: 28, 3: 127, 4: 21, 5: 4, 10: 26}
    assert {code: modes[code] for code in characters} == characters
    assert modes[6] == 255  # VEOL, which is not set
    flags = {36: 1, 38: 1, 34: 0, 50: 1, 51: 1, 53: 1, 57: 0, 70: 1, 72: 1, 90: 0, 91: 1, 92: 0}
    assert {code: modes[code] for code in flags} == flags
    assert modes[128] > 0
    assert modes[129] > 0


def test_what_is_set_otherwise(terminal: int) -> None:
    attributes = termios.tcgetattr(terminal)
    attributes[0] |= 0x4000  # IUTF8
    attributes[3] &= ~termios.ECHO
    attributes[3] |= termios.NOFLSH
    attributes[6][termios.VERASE] = b"\x08"
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    modes = decoded(encode_modes(termios.tcgetattr(terminal)))
    assert (modes[3], modes[42], modes[53], modes[57]) == (8, 1, 0, 1)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), st.binary(min_size=32))
def test_any(flags: list[int], characters: bytes) -> None:
    cc: list[bytes | int] = [characters[place : place + 1] for place in range(32)]
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    modes = decoded(encode_modes([*flags, 15, 15, cc]))
    assert all(0 <= value < 2**32 for value in modes.values())
    assert modes[1] == (characters[0] or 255)
    assert modes[50] == (flags[3] & 1)


def test_the_default_says_utf_8() -> None:
    assert decoded(DEFAULT_MODES) == {42: 1}
