"""Reading text off a screen's pixels."""

from importlib.resources import files

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vmconnect.vnc.framebuffer import Pixels
from vmconnect.vnc.screen_text import read_text

FONT = (files("vmconnect.vnc") / "fonts" / "vga-8x16.bin").read_bytes()
BLACK, GREY, BLUE = 0x000000, 0xAAAAAA, 0x0000AA


def draw(
    lines: list[bytes], width: int = 720, cell: int = 9, paper: int = BLACK, ink: int = GREY
) -> Pixels:
    """Draw code page 437 text as a VGA card does."""
    pixels = np.full((25 * 16, width), paper, np.uint32)
    for row, line in enumerate(lines):
        for column, code in enumerate(line):
            glyph = np.frombuffer(FONT[code * 16 : code * 16 + 16], np.uint8)
            dots = np.unpackbits(glyph[:, None], axis=1).astype(bool)
            x, y = column * cell, row * 16
            pixels[y : y + 16, x : x + 8][dots] = ink
    return pixels


printable = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80))


@given(
    st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80), max_size=25)
)
@settings(max_examples=50, deadline=None)
def test_every_ascii_text_is_read_exactly(lines: list[str]) -> None:
    text = read_text(draw([line.encode() for line in lines]))
    assert text == [line.rstrip() for line in lines] + [""] * (25 - len(lines))


def test_colours_blocks_and_narrow_cells() -> None:
    line = "┌─┐ é Ω ▌▀▄ ░".encode("cp437")
    text = read_text(draw([line], width=640, cell=8, paper=BLUE, ink=GREY))
    assert text is not None
    assert text[0] == "┌─┐ é Ω ▌▀▄ ░"


def test_the_cursor_s_line_does_not_hide_the_cell() -> None:
    pixels = draw([b"demo login: x"])
    pixels[13:15, 12 * 9 : 13 * 9] = GREY
    pixels[13:15, 13 * 9 : 14 * 9] = GREY
    text = read_text(pixels)
    assert text is not None
    assert text[0].startswith("demo login: x")


def test_the_unused_top_byte_does_not_matter() -> None:
    pixels = draw([b"text"])
    pixels[::2] |= 0xFF000000
    text = read_text(pixels)
    assert text is not None
    assert text[0] == "text"


def test_graphics_are_no_text() -> None:
    noise = np.random.default_rng(1).integers(0, 1 << 24, (400, 720), np.uint32)
    assert read_text(noise) is None
    assert read_text(np.zeros((768, 1024), np.uint32)) is None
    assert read_text(np.zeros((0, 0), np.uint32)) is None
    assert read_text(np.zeros((401, 720), np.uint32)) is None
