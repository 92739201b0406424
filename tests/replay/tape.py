"""A recording that is written piece by piece, each at a time of the test's choice."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tests.vnc.wire import raw, rectangle, server_init, update
from tests.vnc.writer import FORMATS
from vmconnect.vnc.framebuffer import Pixels

__all__ = ["Tape", "flat"]

DESKTOP_SIZE = -223


def flat(width: int, height: int, colour: int) -> Pixels:
    """Return a screen of one colour, 0x00RRGGBB."""
    return np.full((height, width), colour, np.uint32)


class Tape:
    """A file of the format that `vmconnect.vnc.recording` describes."""

    def __init__(self, path: Path, width: int, height: int, form: str = "ours"):
        self.path = path
        self.size = width, height
        path.write_bytes(b"vmconnect-rfb 1\n" + FORMATS[form].pack())
        self.say(0.0, server_init(width, height))

    def say(self, at: float, data: bytes) -> None:
        """Add what the server says at a time, in seconds."""
        with self.path.open("ab") as file:
            file.write(struct.pack(">QI", round(at * 1e9), len(data)) + data)

    def show(self, at: float, colour: int) -> Pixels:
        """Let the whole screen have a colour from a time on, and return it."""
        screen = flat(*self.size, colour)
        self.say(at, update(raw(0, 0, screen)))
        return screen

    def show_in_parts(self, first: float, last: float, colour: int) -> Pixels:
        """Let an update come in two parts."""
        screen = flat(*self.size, colour)
        data = update(raw(0, 0, screen))
        self.say(first, data[: len(data) // 2])
        self.say(last, data[len(data) // 2 :])
        return screen

    def resize(self, at: float, width: int, height: int) -> None:
        """Let the screen have another size from a time on."""
        self.size = width, height
        self.say(at, update(rectangle(0, 0, width, height, DESKTOP_SIZE)))

    def cut(self, count: int) -> None:
        """Take bytes away at the end."""
        data = self.path.read_bytes()
        self.path.write_bytes(data[:-count])
