"""Who we are to a VNC server."""

from __future__ import annotations

from collections.abc import Callable

from vmconnect.errors import NoCredentialsError
from vmconnect.secret import Secret

__all__ = ["Answer", "Credentials", "concealed"]

Answer = Callable[[], Secret | str | None] | Secret | str | None
"""A text, or a way to ask for it when a server wants it, or nothing."""


def concealed(answer: Answer) -> Callable[[], Secret | str | None] | Secret | None:
    """Return ``answer`` so that no variable shows it."""
    return answer if callable(answer) else Secret.of(answer)


class Credentials:
    """A user's name and a password, or ways to ask for them; never shown."""

    def __init__(self, password: Answer = None, user: Answer = None):
        self._password = concealed(password)
        self._user = concealed(user)

    @property
    def has_password(self) -> bool:
        """Whether there is a password at hand."""
        return isinstance(self._password, Secret)

    @property
    def has_user(self) -> bool:
        """Whether there is a user's name at hand."""
        return isinstance(self._user, Secret)

    @property
    def may_ask(self) -> bool:
        """Whether there is a password at hand, or a way to ask for one."""
        return self._password is not None

    def password(self) -> str:
        """Return the password, asking for it if need be.

        Raises NoCredentialsError if there is none.
        """
        if callable(self._password):
            self._password = Secret.of(self._password())
        if self._password is None:
            raise NoCredentialsError(
                "the VNC server asks for a password", hint="give the console a password"
            )
        return self._password.reveal()

    def user(self) -> str:
        """Return the user's name, asking for it if need be.

        Raises NoCredentialsError if there is none.
        """
        if callable(self._user):
            self._user = Secret.of(self._user())
        if self._user is None:
            raise NoCredentialsError(
                "the VNC server asks for a user's name", hint="give the console a user"
            )
        return self._user.reveal()

    def __repr__(self) -> str:
        return f"<Credentials {'with' if self.may_ask else 'without'} password>"
