"""What an encoding is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["Encoding", "Rectangle"]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle's header: pseudo-encodings use the numbers as they like."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.x},{self.y}"


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding: ``decode(engine, rectangle)`` reads what follows the header.

    ``draws`` says that it fills its rectangle with pixels: the engine has then compared the
    rectangle with the screen before it calls, and counts it as damage afterwards.
    """

    number: int
    name: str
    decode: Callable[[Engine, Rectangle], Reading[None]]
    draws: bool = False
