"""The person at the terminal, who may be asked for what is missing."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Iterator

__all__ = ["asking_nobody", "someone_to_ask"]

_nobody_is_asked = contextvars.ContextVar("_nobody_is_asked", default=False)


def someone_to_ask() -> bool:
    """Return whether there is a person to be asked, by us or by ssh."""
    return sys.stderr.isatty() and not _nobody_is_asked.get()


@contextlib.contextmanager
def asking_nobody() -> Iterator[None]:
    """Let there be nobody at the terminal, within a ``with`` block of this thread."""
    token = _nobody_is_asked.set(True)
    try:
        yield
    finally:
        _nobody_is_asked.reset(token)
