"""SASL's mechanisms where the system has no library for them: SCRAM by `scramp`, PLAIN, ANONYMOUS.

SCRAM (RFC 5802) proves both sides to each other without showing the password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from vmconnect.errors import AuthenticationError, RfbError
from vmconnect.vnc.credentials import Credentials
from vmconnect.vnc.text import printable

__all__ = ["OWN", "Mechanism", "MechanismUnavailableError"]

# RFC 7677 asks for 4096 rounds at least. A server that asks for so many more wants our time.
_MOST_ROUNDS = 2_000_000

_ROUNDS = re.compile(r"(?:^|,)i=(\d{1,10})(?:,|$)")


class MechanismUnavailableError(AuthenticationError):
    """A mechanism that cannot be begun here; another one may be."""


class Mechanism(Protocol):
    """Our half of a login: `start`, then `step` with each answer until both sides are done.

    ``done`` says that we are: the server has proved all that the mechanism lets it prove.
    """

    name: str
    done: bool

    def start(self) -> bytes | None:
        """Return what the server is told first, if anything.

        Raises MechanismUnavailableError, or AuthenticationError if no credentials are there.
        """

    def step(self, data: bytes) -> bytes | None:
        """Return what to answer to what the server said, if anything; not called when done.

        Raises AuthenticationError if the server refuses us or does not prove itself, RfbError for
        what the mechanism does not know.
        """


class _Scram:
    def __init__(self, name: str, credentials: Credentials):
        from scramp import ScramClient

        self.name = name
        self.done = False
        self._client = ScramClient([name], credentials.user(), credentials.password())
        self._heard = False

    def start(self) -> bytes:
        return str(self._client.get_client_first()).encode()

    def step(self, data: bytes) -> bytes | None:
        from scramp import ScramException

        try:
            return self._answer(data.decode())
        except UnicodeDecodeError as error:
            raise RfbError(f"what is no text in {self.name}") from error
        except ScramException as error:
            raise AuthenticationError(
                f"{self.name} fails: {printable(str(error).encode())}",
                hint="are the user and the password right?",
            ) from error

    def _answer(self, text: str) -> bytes | None:
        if self._heard:
            # This is where the server proves that it knows the password.
            self._client.set_server_final(text)
            self.done = True
            return None
        rounds = _ROUNDS.search(text)
        if rounds is not None and int(rounds[1]) > _MOST_ROUNDS:
            raise RfbError(f"{rounds[1]} rounds of {self.name}")
        self._client.set_server_first(text)
        self._heard = True
        return str(self._client.get_client_final()).encode()


class _Said:
    """A mechanism that is one message: PLAIN (RFC 4616) or ANONYMOUS (RFC 4505)."""

    def __init__(self, name: str, credentials: Credentials):
        self.name = name
        self.done = False
        self._message = b"vmconnect"
        if name == "PLAIN":
            user, password = credentials.user(), credentials.password()
            if "\0" in user + password:
                raise AuthenticationError("SASL takes no NUL in a name or a password")
            self._message = b"\0" + user.encode() + b"\0" + password.encode()

    def start(self) -> bytes:
        self.done = True
        return self._message

    def step(self, _data: bytes) -> None:
        raise RfbError(f"{self.name} has no answer")


OWN: dict[str, Callable[[str, Credentials], Mechanism]] = {
    "SCRAM-SHA-512": _Scram,
    "SCRAM-SHA-256": _Scram,
    "SCRAM-SHA-1": _Scram,
    "PLAIN": _Said,
    "ANONYMOUS": _Said,
}
"""How to make our half of each."""
