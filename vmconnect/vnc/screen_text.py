"""Reading a VGA text screen off its pixels, exactly.

On SeaBIOS, iPXE, GRUB's text mode and the Linux VGA console every cell is a glyph of the video
BIOS's own font, so a table look-up reads it: no recognition, no guessing. The font
(``fonts/vga-8x16.bin``, 256 glyphs of 16 rows, 8 pixels a row, most significant bit leftmost) is
in the public domain.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

import numpy as np

from vmconnect.vnc.framebuffer import Pixels

__all__ = ["read_text"]

_ROWS = 16
_COLUMNS = 8
_GLYPH = _ROWS
# The rows in which the blinking cursor draws its line.
_CURSOR_ROWS = slice(13, 16)
# Widths of a text screen's cells, by the width of the screen: 9 dots with VGA timing, 8 without.
_CELL_WIDTHS = {720: 9, 640: 8, 360: 9, 320: 8}

# Code page 437 as the screen shows it: its control codes are pictures there.
_LOW = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_CHARACTERS = _LOW + bytes(range(32, 256)).decode("cp437").replace("\x7f", "⌂").replace("\xa0", " ")


@cache
def _glyphs() -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Return characters by glyph, and by glyph without the cursor's rows."""
    font = (files("vmconnect.vnc") / "fonts" / "vga-8x16.bin").read_bytes()
    whole: dict[bytes, str] = {}
    above: dict[bytes, str] = {}
    # Letters first: where two characters look alike, the printable ASCII one is meant.
    for code in sorted(range(256), key=lambda code: not 32 <= code < 127):
        glyph = font[code * _GLYPH : (code + 1) * _GLYPH]
        whole.setdefault(glyph, _CHARACTERS[code])
        above.setdefault(glyph[: _CURSOR_ROWS.start], _CHARACTERS[code])
    return whole, above


def read_text(pixels: Pixels) -> list[str] | None:
    """Return the lines of a text screen, blanks at their ends removed; None if it is no such.

    ``pixels`` is (height, width) words of 0x00RRGGBB. A cell that shows no glyph reads as U+FFFD;
    a screen of which more than one cell in twenty does is taken for graphics.
    """
    height, width = pixels.shape
    cell = _CELL_WIDTHS.get(width)
    lines, columns = height // _ROWS, width // cell if cell else 0
    if not cell or not lines or height % _ROWS:
        return None
    grid = (pixels & 0xFFFFFF).reshape(lines, _ROWS, columns, cell)[..., :_COLUMNS]
    # Which of a cell's colours is the paper is not known: the screen's commonest where the cell
    # has it, else the first dot's. A cell of one colour reads as a blank, not as a full block.
    first = grid[:, :1, :, :1]
    values, counts = np.unique(first, return_counts=True)
    common = values[counts.argmax()]
    has_common = (grid == common).any(axis=(1, 3), keepdims=True)
    dots = grid != np.where(has_common, common, first)
    glyphs = np.packbits(dots, axis=-1).reshape(lines, _ROWS, columns).transpose(0, 2, 1)
    data = np.ascontiguousarray(glyphs).tobytes()
    text = [_character(data[start : start + _GLYPH]) for start in range(0, len(data), _GLYPH)]
    if text.count("\ufffd") * 20 > len(text):
        return None
    return ["".join(text[n * columns : (n + 1) * columns]).rstrip() for n in range(lines)]


@lru_cache(maxsize=4096)  # A hostile screen has endless patterns.
def _character(glyph: bytes) -> str:
    whole, above = _glyphs()
    inverse = bytes(~row & 0xFF for row in glyph)
    cut = _CURSOR_ROWS.start
    return (
        whole.get(glyph)
        or whole.get(inverse)
        or above.get(glyph[:cut])
        or above.get(inverse[:cut])
        or "\ufffd"
    )
