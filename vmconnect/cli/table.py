"""Tables for people: columns as wide as they need to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

__all__ = ["print_row", "print_table", "widths_of"]


def print_table(rows: Sequence[Sequence[str]], file: TextIO | None = None) -> None:
    """Print rows, the heads first, in aligned columns; on standard output unless told where."""
    widths = widths_of(rows)
    for row in rows:
        print_row(row, widths, file)


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return how wide the columns have to be."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def print_row(row: Sequence[str], widths: Sequence[int], file: TextIO | None = None) -> None:
    """Print one row of a table whose columns are that wide, or will have been."""
    cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    print("  ".join(cells).rstrip(), file=file)
