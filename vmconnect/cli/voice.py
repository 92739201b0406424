"""What the command itself says, on standard error; and how others' words are shown."""

from __future__ import annotations

import sys

__all__ = ["line", "printable", "say"]


def say(text: str) -> None:
    """Print a message as one line, with nothing in it that could drive the terminal."""
    print(line(text), end="", file=sys.stderr)  # noqa: T201


def line(text: str) -> str:
    """Return a message as `say` prints it."""
    return f"vmconnect: {printable(text.replace(chr(10), ' '))}\n"


def printable(text: str) -> str:
    """Return what may be shown: a name is the guest owner's word, and not our terminal's."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)
