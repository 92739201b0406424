"""Who we are to a VNC server."""

from __future__ import annotations

from collections.abc import Callable

from vmconnect.errors import AuthenticationError

__all__ = ["Credentials"]


class Credentials:
    """A password, or a way to ask for one when a server wants it; never shown."""

    def __init__(self, password: Callable[[], str | None] | str | None = None):
        self._password = password

    @property
    def has_password(self) -> bool:
        """Whether there is a password at hand."""
        return isinstance(self._password, str)

    @property
    def may_ask(self) -> bool:
        """Whether there is a password at hand, or a way to ask for one."""
        return self._password is not None

    def password(self) -> str:
        """Return the password, asking for it if need be.

        Raises AuthenticationError if there is none.
        """
        if callable(self._password):
            self._password = self._password()
        if self._password is None:
            raise AuthenticationError(
                "the VNC server asks for a password", hint="give the console a password"
            )
        return self._password

    def __repr__(self) -> str:
        return f"<Credentials {'with' if self.may_ask else 'without'} password>"
