"""What a message of the server's is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["ServerMessage"]


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """A message: ``read(engine)`` reads what follows its type."""

    number: int
    name: str
    read: Callable[[Engine], Reading[None]]
