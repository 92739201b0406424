"""What of a machine a password opens, or a key proves."""

from __future__ import annotations

import enum

__all__ = ["Purpose"]


class Purpose(enum.Enum):
    """One of the two channels of a machine: what is for the one is not shown to the other."""

    CONSOLE = "console"
    GUEST = "guest"
