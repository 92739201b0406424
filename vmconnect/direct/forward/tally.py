"""What has gone over a forward."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counts of connections and bytes; ``sent`` went into the guest, ``received`` came out of it.

    ``opened`` are the connections that were joined to their other end, ``open`` those of them that
    still are, ``failed`` those that were not joined.
    """

    opened: int = 0
    open: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, *, sent: int = 0, received: int = 0) -> None:
        """Count bytes; from any thread."""
        with self._lock:
            self.sent += sent
            self.received += received
