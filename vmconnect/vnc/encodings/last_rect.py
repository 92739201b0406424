"""LastRect, -224: the update ends here, whatever its header counted (rfbproto, "LastRect")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmconnect.vnc.encodings.base import Encoding, Rectangle
from vmconnect.vnc.inbox import Reading

if TYPE_CHECKING:
    from vmconnect.vnc.engine import Engine

__all__ = ["LAST_RECT"]


def _decode(engine: Engine, _rectangle: Rectangle) -> Reading[None]:
    engine.end_update_here()
    yield from ()


LAST_RECT = Encoding(-224, "LastRect", _decode)
