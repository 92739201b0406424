r"""What a program on a terminal has changed there, and how to put it right.

A program that ends changes back what it has changed: it leaves the other screen, shows the cursor,
lets go of the mouse. One that is cut off by a lost connection does not. So whoever shows what it
writes reads along, and knows what is left to do. The sequences are of ECMA-48, of DEC's terminals
and of xterm (its ctlseqs document); all others are passed over.

It sees bytes, and does no I/O. What it remembers is bounded, whatever they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["ScreenState"]

# DEC private modes that a program may leave behind, and whether they are on to begin with.
_MODES: dict[int, bool] = {
    1: False,  # cursor keys send application sequences
    5: False,  # reverse video
    6: False,  # origin
    7: True,  # wrap at the right edge
    9: False,  # mouse, as X10 has it
    25: True,  # the cursor is shown
    47: False,  # the other screen, in its three forms
    66: False,  # application keypad
    1000: False,  # mouse buttons, and what else of the mouse
    1001: False,
    1002: False,
    1003: False,
    1004: False,  # focus
    1005: False,  # how the mouse's position is written
    1006: False,
    1015: False,
    1016: False,
    1047: False,
    1049: False,
    2004: False,  # what is pasted is put in brackets
    2026: False,  # nothing is shown until the update is whole
    2048: False,  # sizes are told in band
}
_OTHER_SCREENS = (1049, 1047, 47)
_MOST_PUSHED = 99

_SEQUENCE = re.compile(
    rb"\x1b(?:"
    rb"\[\?(?P<modes>[0-9;]{1,64})(?P<switch>[hl])"
    rb"|\[(?P<style>[0-9;:]{0,64})m"
    rb"|\[>4(?P<keys>(?:;[0-9]*)?)m"
    rb"|\[>(?P<push>[0-9]*)u"
    rb"|\[<(?P<pop>[0-9]*)u"
    rb"|\[(?P<cursor>[0-9]?) q"
    rb"|\[(?P<region>[0-9]{0,5}(?:;[0-9]{0,5})?)r"
    rb"|(?P<keypad>[=>])"
    rb"|\((?P<charset>[0-9A-Za-z])"
    rb"|(?P<all>c|\[!p)"
    rb")|(?P<shift>[\x0e\x0f])"
)
# A sequence of those above whose end has not come yet.
_BEGUN = re.compile(rb"\x1b(?:\[[?<>!]?[0-9;: ]{0,64}|\()?\Z")
_LONGEST = 80


class ScreenState:
    """Reads what goes to a terminal, and knows what a program has left changed."""

    def __init__(self) -> None:
        self.at_line_start = True
        """Whether the cursor is in the first column, as far as the last byte tells."""
        self._begun = b""
        self._modes: dict[int, bool] = {}
        self._others: dict[str, bytes] = {}
        self._pushed = 0

    def receive(self, data: bytes) -> None:
        """Take what the program has written."""
        if data:
            self.at_line_start = data.endswith((b"\n", b"\r"))
        if self._begun:
            data = self._begun + data
            self._begun = b""
        if b"\x1b" not in data and b"\x0e" not in data and b"\x0f" not in data:
            return
        for match in _SEQUENCE.finditer(data):
            kind = match.lastgroup or ""
            _TAKERS[kind](self, match)
        if begun := _BEGUN.search(data, max(0, len(data) - _LONGEST)):
            self._begun = begun[0]

    def undo(self) -> bytes:
        """Return what puts the terminal back into the state it is in for a shell."""
        parts = []
        for mode, on in self._modes.items():
            if mode not in _OTHER_SCREENS:
                parts.append(_switch(mode, not on))
        if "keys" in self._others:
            parts.append(b"\x1b[>4m")
        if self._pushed:
            parts.append(b"\x1b[<%du" % self._pushed)
        for kind, sequence in (("keypad", b"\x1b>"), ("cursor", b"\x1b[0 q")):
            if kind in self._others:
                parts.append(sequence)
        # The other screen last, but for what each screen has of its own.
        parts += [_switch(mode, on=False) for mode in _OTHER_SCREENS if mode in self._modes]
        if "region" in self._others:
            parts.append(b"\x1b7\x1b[r\x1b8")  # It takes the cursor along.
        for kind, sequence in (("charset", b"\x1b(B"), ("shift", b"\x0f"), ("style", b"\x1b[m")):
            if kind in self._others:
                parts.append(sequence)
        return b"".join(parts)

    def redo(self) -> bytes:
        """Return what brings back what `undo` has undone, for a program that goes on."""
        modes = [_switch(mode, on) for mode, on in self._modes.items()]
        pushed = [self._others["pushed"]] if self._pushed else []
        others = [part for kind, part in self._others.items() if kind != "pushed"]
        return b"".join([*modes, *others, *pushed * self._pushed])

    def _take_modes(self, match: re.Match[bytes]) -> None:
        on = match["switch"] == b"h"
        for word in match["modes"].split(b";"):
            mode = int(word[:5] or b"0")
            if mode in _MODES:
                self._modes.pop(mode, None)
                if on != _MODES[mode]:
                    self._modes[mode] = on

    def _take_push(self, match: re.Match[bytes]) -> None:
        self._pushed = min(self._pushed + 1, _MOST_PUSHED)
        self._others["pushed"] = match[0]

    def _take_pop(self, match: re.Match[bytes]) -> None:
        self._pushed = max(0, self._pushed - int(match["pop"][:3] or b"1"))

    def _take_all(self, _match: re.Match[bytes]) -> None:
        self._modes.clear()
        self._others.clear()
        self._pushed = 0

    def _note(self, kind: str, sequence: bytes, plain: bool) -> None:
        self._others.pop(kind, None)
        if not plain:
            self._others[kind] = sequence


def _switch(mode: int, on: bool) -> bytes:
    return b"\x1b[?%d%c" % (mode, b"h" if on else b"l")


def _noted(kind: str, *plain: bytes) -> Callable[[ScreenState, re.Match[bytes]], None]:
    """Return what takes a sequence whose parameter, if it is none of ``plain``, is a change."""

    def take(state: ScreenState, match: re.Match[bytes]) -> None:
        state._note(kind, match[0], match[kind] in plain)

    return take


_TAKERS: dict[str, Callable[[ScreenState, re.Match[bytes]], None]] = {
    "switch": ScreenState._take_modes,
    "push": ScreenState._take_push,
    "pop": ScreenState._take_pop,
    "all": ScreenState._take_all,
    "style": _noted("style", b"", b"0", b"00"),
    "keys": _noted("keys", b"", b";", b";0"),
    "cursor": _noted("cursor", b"", b"0"),
    "region": _noted("region", b"", b";"),
    "keypad": _noted("keypad", b">"),
    "charset": _noted("charset", b"B"),
    "shift": _noted("shift", b"\x0f"),
}
