from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmconnect.ui.screen_state import ScreenState

# Real ones: what vim 9.0 and htop write as they start, in an xterm.
VIM = (
    b"\x1b[?1049h\x1b[22;0;0t\x1b[>4;2m\x1b[?1h\x1b=\x1b[?2004h\x1b[?1004h\x1b[1;24r\x1b[?12h"
    b"\x1b[?12l\x1b[22;2t\x1b[22;1t\x1b[27m\x1b[23m\x1b[29m\x1b[m\x1b[H\x1b[2J\x1b[?25l"
)
HTOP = (
    b"\x1b[?1049h\x1b[22;0;0t\x1b[1;24r\x1b(B\x1b[m\x1b[4l\x1b[?7h\x1b[?1h\x1b=\x1b[?25l"
    b"\x1b[?1006;1000h"
)

PIECES = [
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?25l",
    b"\x1b[?25h",
    b"\x1b[?1006;1000h",
    b"\x1b[?7l",
    b"\x1b[31m",
    b"\x1b[m",
    b"\x1b[>4;2m",
    b"\x1b[>1u",
    b"\x1b[<u",
    b"\x1b[3 q",
    b"\x1b[2;9r",
    b"\x1b=",
    b"\x1b(0",
    b"\x0e",
    b"\x1bc",
    b"text",
    b"\n",
    b"\x1b",
    b"[",
    b"\x1b[?",
]
written = st.lists(st.sampled_from(PIECES)).map(b"".join)


def after(*pieces: bytes) -> ScreenState:
    state = ScreenState()
    for piece in pieces:
        state.receive(piece)
    return state


@pytest.mark.parametrize(
    ("data", "undone"),
    [
        (b"", b""),
        (b"plain \x1b[1;31mred\x1b[0m\r\n", b""),
        (b"\x1b[?25l", b"\x1b[?25h"),
        (b"\x1b[?7l", b"\x1b[?7h"),
        (b"\x1b[?25l\x1b[?25h", b""),
        (b"\x1b[?1049h\x1b[?1006;1002h", b"\x1b[?1006l\x1b[?1002l\x1b[?1049l"),
        (b"\x1b[1;31m", b"\x1b[m"),
        (b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[>4;2m\x1b[>4m", b""),
        (b"\x1b[>1u\x1b[>5u", b"\x1b[<2u"),
        (b"\x1b[>1u\x1b[<u\x1b[<9u", b""),
        (b"\x1b[4 q", b"\x1b[0 q"),
        (b"\x1b[2;9r", b"\x1b7\x1b[r\x1b8"),
        (b"\x1b=\x1b(0\x0e", b"\x1b>\x1b(B\x0f"),
        (b"\x1b[?1049h\x1b=\x1b[?25l\x1bc", b""),
        # Of no concern: blinking, window titles, what nobody knows.
        (b"\x1b[?12h\x1b]0;title\x07\x1b[?31337h\x1b[22;0t", b""),
    ],
)
def test_what_is_left_is_undone(data: bytes, undone: bytes) -> None:
    assert after(data).undo() == undone


@pytest.mark.parametrize("program", [VIM, HTOP])
def test_real_programs(program: bytes) -> None:
    undone = after(program).undo()
    for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1l", b"\x1b>", b"\x1b7\x1b[r\x1b8"):
        assert sequence in undone
    assert after(program, undone).undo() == b""


@given(st.lists(written))
def test_how_it_is_cut_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert after(*pieces).undo() == after(whole).undo()
    assert after(*(bytes([byte]) for byte in whole)).undo() == after(whole).undo()


@given(written)
def test_undone_is_undone_and_redone_is_as_before(data: bytes) -> None:
    state = after(data)
    # A sequence that was begun is none.
    undone = after(data, b"\x18", state.undo())
    assert undone.undo() == b""
    assert after(state.redo()).undo() == state.undo()


@given(st.lists(st.binary()))
def test_any_bytes(pieces: list[bytes]) -> None:
    state = after(*pieces)
    assert after(state.undo()).undo() == b""
    assert len(state.undo()) < 1000


def test_nothing_grows_without_end() -> None:
    state = ScreenState()
    for _ in range(1000):
        state.receive(b"\x1b[>1u\x1b[" + b"1;" * 500)
    assert state.undo() == b"\x1b[<99u"
    assert len(state._begun) < 100


def test_where_the_cursor_is() -> None:
    assert after().at_line_start
    assert after(b"a\r\n").at_line_start
    assert not after(b"a\r\n$ ").at_line_start
    assert not after(b"$ ", b"").at_line_start
