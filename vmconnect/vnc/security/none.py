"""Security type None: nothing is asked (RFC 6143, section 7.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.inbox import Reading
from vmconnect.vnc.security.base import Login

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["NONE"]


def _login(_engine: Engine) -> Reading[None]:
    yield from ()


NONE = Login(1, "None", False, _login)
