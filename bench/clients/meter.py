"""What a client measures of itself. Nothing is imported that a client does not have anyway."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path

_PAGE = resource.getpagesize()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_bytes() -> int:
    # ru_maxrss would begin with that of the process which started us.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no VmHWM in /proc/self/status")


class Meter:
    """Made when all is imported, just before the client connects."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self._resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self._cpu = _cpu_seconds()

    def update(self) -> None:
        """Note that an update is drawn."""
        self.updates.append(time.monotonic_ns())

    def stop(self) -> None:
        """Note that the server has hung up."""
        self._cpu = _cpu_seconds() - self._cpu
        self._peak = _peak_bytes()

    def report(self, picture: str, rgb: bytes) -> None:
        """Write the picture and print the figures.

        ``cpu_seconds`` are user and system, all threads, from connecting to the end of the
        stream; ``memory_bytes`` is the peak of what is resident less what was before connecting;
        ``updates`` are the times (CLOCK_MONOTONIC, nanoseconds) at which updates were drawn.
        """
        Path(picture).write_bytes(rgb)
        figures = {
            "cpu_seconds": self._cpu,
            "memory_bytes": self._peak - self._resident * _PAGE,
            "updates": self.updates,
        }
        os.write(1, json.dumps(figures).encode() + b"\n")
