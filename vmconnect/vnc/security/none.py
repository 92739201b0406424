"""Security type None: nothing is asked (RFC 6143, section 7.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Asks, Login

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["NONE", "speak"]


def speak(_engine: Engine) -> Reading[None]:
    """Say nothing, and be asked nothing."""
    yield from ()


NONE = Login(1, "None", speak, Asks.NOTHING)
