"""What a command line means depends on: variables, file systems, how names are written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vmconnect.broker.order import Order, meaningful

__all__ = ["Surroundings"]


class Surroundings:
    """Those of this process."""

    def __init__(self) -> None:
        self._environment = meaningful(os.environ)
        self._names = sys.getfilesystemencoding()

    def are_of(self, order: Order, process: int) -> bool:
        """Return whether an order means here what it means in the process that it comes from."""
        return (
            order.environment == self._environment
            and order.names == self._names
            and _sees_our_files(process)
        )


def _sees_our_files(process: int) -> bool:
    """Return whether a process has our root directory, and our mounts."""
    own = Path("/proc/self")
    try:
        return all(
            own.joinpath(each).samefile(f"/proc/{process}/{each}") for each in ("ns/mnt", "root")
        )
    except OSError:
        return False  # It is in a container of its own, or has gone.
