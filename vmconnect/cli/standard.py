"""The standard streams that a command in a guest uses: this process's, or a client's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Protocol

from vmconnect.cli.voice import say

__all__ = ["OwnStandard", "Standard"]

_READ_BYTES = 1 << 17


class Standard(Protocol):
    """Where a command's input comes from, and where what it writes goes, unbuffered.

    Writing raises BrokenPipeError when whoever reads has left.
    """

    def input(self) -> Iterator[bytes] | None:
        """Give what standard input gives, until its end; None if it is known to be empty."""

    def output(self, data: bytes, /) -> None:
        """Write to standard output."""

    def error_output(self, data: bytes, /) -> None:
        """Write to standard error."""

    def say(self, text: str, /) -> None:
        """Print a message of our own, as `vmconnect.cli.voice.say` does."""


class OwnStandard:
    """The standard streams of this process."""

    def input(self) -> Iterator[bytes]:
        """Give what standard input gives, until its end."""
        while True:
            try:
                data = os.read(0, _READ_BYTES)
            except OSError:
                return  # Started with no standard input.
            if not data:
                return
            yield data

    def output(self, data: bytes, /) -> None:
        """Write to standard output."""
        _write(1, data)

    def error_output(self, data: bytes, /) -> None:
        """Write to standard error."""
        _write(2, data)

    def say(self, text: str, /) -> None:
        """Print a message of our own."""
        say(text)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
