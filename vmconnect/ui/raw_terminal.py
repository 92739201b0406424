"""The terminal that we run on: its size, its modes, and how it is lent to a program elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
import termios
from typing import Any

from vmconnect.errors import ResourceError

__all__ = ["RawTerminal"]

_DEFAULT_SIZE = (80, 24)
# How long a terminal that takes nothing is waited for at the end (seconds).
_PATIENCE = 0.5
_IUCLC = 0x200  # Python's termios has no name for it (asm-generic/termbits.h).


class RawTerminal:
    """Standard input and output, which may be terminals or not.

    Raw is what ssh makes of a terminal: every key goes on, nothing is echoed or changed.
    """

    def __init__(self, input_: int = 0, output: int = 1):
        self.input = input_
        self.output = output
        self.interactive = os.isatty(input_)
        """Whether a person types here."""
        self.shows = os.isatty(output)
        """Whether what is written is shown on a terminal."""
        self._before: list[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        for descriptor in (self.output, self.input, 2):
            with contextlib.suppress(OSError):
                columns, rows = os.get_terminal_size(descriptor)
                if columns and rows:
                    return columns, rows
        return _DEFAULT_SIZE

    @property
    def attributes(self) -> list[Any] | None:
        """The terminal's modes as `termios.tcgetattr` gives them; None if it is none."""
        for descriptor in (self.input, self.output):
            with contextlib.suppress(termios.error):
                return termios.tcgetattr(descriptor)
        return None

    def enter_raw(self) -> None:
        """Make it raw, if it is a terminal. Raises ResourceError if it has gone."""
        if not self.interactive:
            return
        try:
            if self._before is None:
                self._before = termios.tcgetattr(self.input)
            # What was typed ahead stays.
            termios.tcsetattr(self.input, termios.TCSANOW, _raw(self._before))
        except termios.error as error:
            raise ResourceError(f"the terminal has gone: {error.args[1]}") from error

    def leave_raw(self) -> None:
        """Give it back as it was; a terminal that has gone needs nothing."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.input, termios.TCSANOW, before)

    def write(self, data: bytes, *, patient: bool = True) -> None:
        """Write all of ``data``; if not ``patient``, what it takes soon. Raises OSError."""
        view = memoryview(data)
        while view:
            if not patient and not self.has_room(_PATIENCE):
                return
            try:
                view = view[os.write(self.output, view) :]
            except BlockingIOError:  # Somebody else has made it so.
                self.has_room(None)

    def has_room(self, seconds: float | None = 0.0) -> bool:
        """Return whether it takes more within so many seconds; None waits for that."""
        poll = select.poll()
        poll.register(self.output, select.POLLOUT)
        return bool(poll.poll(None if seconds is None else seconds * 1000))


def _raw(attributes: list[Any]) -> list[Any]:
    """Return the modes of a raw terminal, made from those of one that is not."""
    input_, output, control, local, in_speed, out_speed, characters = attributes
    input_ |= termios.IGNPAR
    input_ &= ~(
        termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
        | termios.IXANY
        | termios.IXOFF
        | _IUCLC
    )
    output &= ~termios.OPOST
    local &= ~(
        termios.ISIG
        | termios.ICANON
        | termios.ECHO
        | termios.ECHOE
        | termios.ECHOK
        | termios.ECHONL
        | termios.IEXTEN
    )
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [input_, output, control, local, in_speed, out_speed, characters]
