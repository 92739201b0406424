"""Text that comes from a server, made safe to show."""

from __future__ import annotations

__all__ = ["printable"]


def printable(data: bytes | memoryview, limit: int = 256) -> str:
    """Return ``data`` read as UTF-8, without what a terminal would obey, at most ``limit`` long.

    Bytes that are no UTF-8 are read as Latin-1, which is what RFC 6143 says of old servers.
    """
    raw = bytes(data)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    text = "".join(c if c.isprintable() else " " for c in text.replace("\0", "")).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
