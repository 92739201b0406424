"""Frames both ways: taken by one function, written by another.

This module runs in guests, too.
"""

from __future__ import annotations

from vmconnect.direct.copy.frames import HEADER

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmconnect.direct.copy.frames import Bytes

__all__ = ["Pipe"]

_FLUSH_BYTES = 1 << 16


class Pipe:
    """Both directions; one thread may put while another takes.

    ``take`` returns the next frame, as `vmconnect.direct.copy.reader.FrameReader.take` does;
    ``write`` writes all that it is given, one buffer after the other.
    """

    def __init__(
        self, take: Callable[[], tuple[int, memoryview]], write: Callable[..., object]
    ) -> None:
        self.take = take
        self._write = write
        self._out = bytearray()

    def put(self, kind: int, payload: Bytes = b"") -> None:
        """Send a frame, or keep it for a moment if it is small."""
        out = self._out
        out += HEADER.pack(kind, len(payload))
        if len(payload) < _FLUSH_BYTES:
            out += payload
            if len(out) >= _FLUSH_BYTES:
                self.flush()
        else:
            self._out = bytearray()
            self._write(out, payload)

    def flush(self) -> None:
        """Send what was kept."""
        if self._out:
            out, self._out = self._out, bytearray()
            self._write(out)
