"""What the broker says of itself, in a file: when it began and ended, and what went wrong.

No command line and no environment is in it, and of errors only where they came up: their words may
have what a user typed in them.
"""

from __future__ import annotations

import logging
import os
import traceback
from logging.handlers import RotatingFileHandler
from types import TracebackType

from vmconnect.paths import private_directory, state_directory

__all__ = ["open_log"]

_BYTES = 128 << 10
_FORM = "%(asctime)s %(process)d %(message)s"


class _Formatter(logging.Formatter):
    """Tells an exception's kind and place, and not its message."""

    def formatException(  # noqa: N802 (logging's name)
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        kind, _, trace = ei
        return "".join(traceback.format_tb(trace)) + (kind.__name__ if kind else "")


class _Handler(RotatingFileHandler):
    """A file that only its owner can read, and one older."""

    def _open(self):  # type: ignore[no-untyped-def]
        return open(
            self.baseFilename,
            self.mode,
            encoding="utf-8",
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def open_log() -> None:
    """Write the log of this process to ``broker.log`` in the state directory, and never much.

    Raises ResourceError, OSError.
    """
    path = private_directory(state_directory()) / "broker.log"
    handler = _Handler(path, maxBytes=_BYTES, backupCount=1)
    handler.setFormatter(_Formatter(_FORM))
    log = logging.getLogger(__package__)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
