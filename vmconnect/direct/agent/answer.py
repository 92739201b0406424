"""One object of an agent's answer, each field checked as it is read.

Whatever the guest says is checked for its shape, and bounded; what it says may still be a lie.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from vmconnect.errors import AgentError

__all__ = ["MOST_ITEMS", "MOST_NUMBER", "Answer", "number_in", "shown"]

MOST_ITEMS = 4096
MOST_NUMBER = 1 << 64
_TEXT_CHARACTERS = 256


class Answer:
    """The object that answers ``command``; AgentError for whatever has not the shape it should."""

    __slots__ = ("_command", "_content")

    def __init__(self, content: Any, command: str):
        self._command = command
        if not isinstance(content, dict):
            raise self._senseless()
        self._content = content

    @classmethod
    def each(cls, content: Any, command: str) -> list[Answer]:
        """Return the objects of an answer that is a list of them."""
        if not isinstance(content, list) or len(content) > MOST_ITEMS:
            raise AgentError(f"a senseless answer to {command}")
        return [cls(item, command) for item in content]

    def text(self, name: str, most: int = _TEXT_CHARACTERS) -> str:
        """Return what may be shown of a text; empty where there is none."""
        return shown(self._content.get(name), most)

    def flag(self, name: str) -> bool:
        """Return a truth value; False where there is none."""
        return self._content.get(name) is True

    def number(self, name: str, below: int = MOST_NUMBER) -> int:
        """Return an integer between -``below`` and ``below``."""
        return number_in(self._content.get(name), below, self._command)

    def some_number(self, name: str, below: int = MOST_NUMBER) -> int | None:
        """Return the same, None where there is none."""
        return None if self._content.get(name) is None else self.number(name, below)

    def seconds(self, name: str) -> float:
        """Return a time that may have a fraction."""
        value = self._content.get(name)
        if isinstance(value, int | float) and -MOST_NUMBER < value < MOST_NUMBER:
            return float(value)
        raise self._senseless()

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list, as they are; none where there is no list."""
        value = self._content.get(name, [])
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise self._senseless()
        if not all(isinstance(each, str) for each in value):
            raise self._senseless()
        return tuple(value)

    def shown_texts(self, name: str) -> tuple[str, ...]:
        """Return what may be shown of the same."""
        return tuple(shown(each) for each in self.texts(name))

    def part(self, name: str) -> Answer | None:
        """Return the object within this one, None where there is none."""
        value = self._content.get(name)
        return None if value is None else Answer(value, self._command)

    def parts(self, name: str) -> list[Answer]:
        """Return the objects of a list; none where there is no list."""
        value = self._content.get(name)
        return [] if value is None else self.each(value, self._command)

    def data(self, name: str, most: int) -> bytes:
        """Return what a Base64 text holds, up to ``most`` bytes; none where there is no text."""
        encoded = self._content.get(name)
        if encoded is None:
            return b""
        if not isinstance(encoded, str):
            raise self._senseless()
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise AgentError(f"no Base64 in an answer to {self._command}") from error
        if len(data) > most:
            raise AgentError(f"{len(data)} bytes instead of {most}")
        return data

    def _senseless(self) -> AgentError:
        return AgentError(f"a senseless answer to {self._command}")


def number_in(value: Any, below: int, command: str) -> int:
    """Return an integer between -``below`` and ``below``; AgentError if it is none."""
    if type(value) is not int or not -below < value < below:  # Python takes true for a 1.
        raise AgentError(f"a senseless answer to {command}")
    return value


def shown(value: Any, most: int = _TEXT_CHARACTERS) -> str:
    """Return what may be shown of a text of the guest's; empty for what is no text."""
    text = value[:most] if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "?" for char in text)
