"""What a login is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["Login"]


@dataclass(frozen=True, slots=True)
class Login:
    """A security type: ``login(engine)`` speaks its part, up to before the SecurityResult."""

    number: int
    name: str
    needs_password: bool
    login: Callable[[Engine], Reading[None]]
