"""The way to a VNC server, found anew for each connection."""

from __future__ import annotations

from dataclasses import dataclass

from vmconnect.retry import Heartbeat
from vmconnect.streams import Stream
from vmconnect.vnc.policy import Policy

__all__ = ["Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """A stream to a VNC server, and what holds over it.

    ``policy`` is what the server must prove there; over a ``local`` one nothing needs to be
    compressed; a ``heartbeat`` finds out whether its far end is there. A machine that moves may be
    reached by TCP now, where it was by a UNIX socket before: so all that belongs to the stream.
    """

    stream: Stream
    policy: Policy
    local: bool = False
    heartbeat: Heartbeat | None = None
