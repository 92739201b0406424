"""One line of the journal."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Self

__all__ = ["MOST_LINE_BYTES", "Entry"]

_TEXT_CHARACTERS = 500
_LIST_ITEMS = 100
MOST_LINE_BYTES = 1 << 20
"""Nothing that is written is nearly as long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done with a machine.

    ``time`` is when it was done, UTC, as ``2026-11-25T14:06:01.123Z``. ``what`` is the kind of
    thing and what was done with it: ``console.open``, ``guest.run``, ``power.reset``. ``uid`` and
    ``user`` are who did it, ``sudo_user`` who they were before sudo, ``pid`` the process. ``error``
    is the kind of error (its class), ``message`` its words; without them all went well. ``seconds``
    is how long it took. ``sent`` and ``received`` are in bytes, as seen from here. ``details``
    depend on what was done. What is unknown or does not apply is None, and is not written.
    """

    time: str
    what: str
    machine: str
    target: str | None = None
    uuid: str | None = None
    user: str | None = None
    uid: int | None = None
    sudo_user: str | None = None
    pid: int | None = None
    error: str | None = None
    message: str | None = None
    seconds: float | None = None
    sent: int | None = None
    received: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return self.error is None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that stands in the journal; ``result`` is ok or error."""
        given = {each: getattr(self, each) for each in _NAMES}
        written = {
            name: _bounded(value)
            for name, value in given.items()
            if value is not None and value != {}
        }
        return {**written, "result": "ok" if self.ok else "error"}

    def to_line(self) -> bytes:
        """Return the line, with its end; ASCII, whatever is in it."""
        return json.dumps(self.as_json(), separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """Read a line; None if it is none, or one of a form to come that is not understood."""
        if len(line) > MOST_LINE_BYTES:
            return None
        found = _object(line)
        # A line that a full disk cut short has no end of its own: the next one follows it at once.
        if found is None and (start := line.rfind(_BEGINNING)) > 0:
            found = _object(line[start:])
        if found is None:
            return None
        known = {name: found[name] for name in _NAMES if name in found}
        if not all(_fits(name, value) for name, value in known.items()):
            return None
        try:
            return cls(**known)
        except TypeError:
            return None  # It has no time, or does not say what was done.


_NAMES = tuple(each.name for each in fields(Entry))
_BEGINNING = b'{"time":'
_NUMBERS = {"uid": int, "pid": int, "sent": int, "received": int, "seconds": (int, float)}


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _fits(name: str, value: Any) -> bool:
    """Return whether a value has its field's type: anybody may have written the file."""
    if name == "details":
        return isinstance(value, dict)
    if name in _NUMBERS:
        number = isinstance(value, _NUMBERS[name]) and not isinstance(value, bool)  # type: ignore[arg-type]
        return number and math.isfinite(value)
    return isinstance(value, str)


def _bounded(value: Any) -> Any:
    """Return a value as it may be written: no text without end, whoever wrote it."""
    if isinstance(value, str):
        return value if len(value) <= _TEXT_CHARACTERS else value[: _TEXT_CHARACTERS - 1] + "…"
    if isinstance(value, dict):
        return {key: _bounded(each) for key, each in list(value.items())[:_LIST_ITEMS]}
    if isinstance(value, list | tuple):
        return [_bounded(each) for each in value[:_LIST_ITEMS]]
    if isinstance(value, float):
        return round(value, 6)
    return value
