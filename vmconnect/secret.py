"""Secrets: texts that nothing shows by accident, neither a log nor a traceback with its locals.

A `Secret` is handed around; where the text itself is needed, and nowhere else, it is revealed.
"""

from __future__ import annotations

from typing import NoReturn, overload

from vmconnect.errors import ResourceError

__all__ = ["Secret", "forget_frames"]

_SHOWN = "***"


class _Revealed(str):
    """A secret's text for the one who uses it; its repr, what tracebacks print, shows nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{_SHOWN}'"


class Secret:
    """A password or passphrase; ``repr``, ``str`` and formats of it show nothing.

    It cannot be pickled, and is equal to another secret with the same text, found out in a time
    that tells nothing. Raises ResourceError for a text that is no Unicode, as an environment
    variable may be.
    """

    __slots__ = ("__text",)

    def __init__(self, text: str):
        # What cannot be encoded would be shown by the error of whoever tries to.
        if any("\ud800" <= char <= "\udfff" for char in text):
            del text  # The traceback has this call's variables.
            raise ResourceError("a password is not UTF-8")
        self.__text = _Revealed(text)

    @overload
    @classmethod
    def of(cls, value: Secret | str) -> Secret: ...

    @overload
    @classmethod
    def of(cls, value: Secret | str | None) -> Secret | None: ...

    @classmethod
    def of(cls, value: Secret | str | None) -> Secret | None:
        """Return ``value`` as a secret, None if there is none."""
        return cls(value) if isinstance(value, str) else value

    def reveal(self) -> str:
        """Return the text, for a login to be made with it; do not keep it."""
        return self.__text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        import hmac  # Hardly ever asked for, and slow to import.

        return hmac.compare_digest(self.__text.encode(), other.__text.encode())

    def __hash__(self) -> int:
        return hash(self.__text)

    def __repr__(self) -> str:
        return f"Secret({_SHOWN})"

    def __str__(self) -> str:
        return _SHOWN

    def __format__(self, form: str) -> str:
        return format(_SHOWN, form)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be written down")


def forget_frames(error: BaseException) -> None:
    """Clear the local variables of the calls that have ended with ``error``, and its causes.

    A library that is handed a secret has it in variables of its own, encoded, and its traceback
    keeps them.
    """
    import traceback

    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        pending += [each.__cause__, each.__context__]
