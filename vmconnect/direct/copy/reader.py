"""From bytes to frames: a buffer that is read into, and what in it is whole.

This module runs in guests, too.
"""

from __future__ import annotations

from vmconnect.direct.copy.frames import HEADER, MAX_PAYLOAD, FrameError

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FrameReader"]

BUFFER_BYTES = 2 * MAX_PAYLOAD


class FrameReader:
    """Takes frames from ``read_into``, which returns how many bytes came, 0 at the end.

    ``spare`` gives the buffer to go on in when one is full; without it there is but one.
    """

    def __init__(
        self,
        read_into: Callable[[memoryview], int],
        spare: Callable[[], memoryview] | None = None,
    ) -> None:
        self._read_into = read_into
        self._spare = spare
        self._buffer = spare() if spare else memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0

    def take(self) -> tuple[int, memoryview]:
        """Return the next frame; its payload is valid until its buffer is used again.

        That is the next call where there is but one buffer. Raises EOFError at the end, FrameError
        for a frame that is too long.
        """
        self._have(HEADER.size)
        kind, length = HEADER.unpack_from(self._buffer, self._start)
        if length > MAX_PAYLOAD:
            raise FrameError(f"a frame of {length} bytes")
        self._start += HEADER.size
        self._have(length)
        payload = self._buffer[self._start : self._start + length]
        self._start += length
        return kind, payload

    def _have(self, count: int) -> None:
        """Read until that many bytes are there, in one piece."""
        held = self._end - self._start
        if held >= count:
            return
        if len(self._buffer) - self._start < count:
            buffer = self._spare() if self._spare else self._buffer
            buffer[:held] = self._buffer[self._start : self._end]
            self._buffer = buffer
            self._start, self._end = 0, held
        elif not held and not self._spare:
            self._start = self._end = 0
        while self._end - self._start < count:
            got = self._read_into(self._buffer[self._end :])
            if not got:
                raise EOFError
            self._end += got
