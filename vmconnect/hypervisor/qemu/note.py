"""The note beside a machine's monitor, ``NAME.json``: how to log in to its guest."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from vmconnect.hypervisor.machine import GuestNote
from vmconnect.streams import SSH_PORT, Endpoint, HybridVsock

__all__ = ["read_note"]

_NOTE_BYTES = 64 << 10


def read_note(path: Path | str) -> tuple[GuestNote, Endpoint | None]:
    """Read the note beside a monitor; a missing or unreadable one says nothing."""
    try:
        # A FIFO must not hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
            info = os.fstat(descriptor)
            # A note names a private key and a user: only our own word, or root's, counts.
            trusted = info.st_uid in {os.getuid(), 0} and not info.st_mode & 0o022
            if not trusted or not stat.S_ISREG(info.st_mode):
                return GuestNote(), None
            content = json.loads(file.read(_NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return GuestNote(), None
    guest: Any = content.get("guest") if isinstance(content, dict) else None
    if not isinstance(guest, dict):
        return GuestNote(), None

    def text(key: str) -> str | None:
        value = guest.get(key)
        return value if isinstance(value, str) and value else None

    endpoint = text("endpoint") or ""
    hybrid = endpoint.removeprefix("vsock-mux")
    return (
        GuestNote(text("user"), text("identity_file"), text("host_key")),
        HybridVsock(hybrid, SSH_PORT) if hybrid.startswith("/") and hybrid != endpoint else None,
    )
