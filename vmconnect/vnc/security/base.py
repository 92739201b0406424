"""What a login is."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["Asks", "Login", "log_in"]


class Asks(enum.Enum):
    """What a server wants of us in a login."""

    NOTHING = enum.auto()
    PASSWORD = enum.auto()
    USER = enum.auto()
    """A user's name and a password."""
    DEPENDS = enum.auto()
    """The server tells after the login has been chosen."""


@dataclass(frozen=True, slots=True)
class Login:
    """A security type: ``speak(engine)`` speaks its part, up to before the SecurityResult.

    ``hides`` says that who listens cannot read the password; ``encrypts``, all that follows;
    ``proves``, that the server shows who it is. A login whose ``asks`` is DEPENDS has others
    within, of which the same is known later.
    """

    number: int
    name: str
    speak: Callable[[Engine], Reading[None]]
    asks: Asks
    hides: bool = True
    encrypts: bool = False
    proves: bool = False


def log_in(engine: Engine, login: Login) -> Reading[None]:
    """Make a login; ``engine.login`` is then the one that has been made in the end."""
    engine.login = login
    engine.message = login.name
    yield from login.speak(engine)
