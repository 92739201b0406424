"""Frames over two functions: one that reads bytes into a buffer, one that writes bytes.

This module runs in guests, too.
"""

from __future__ import annotations

from vmconnect.direct.copy.frames import HEADER, MAX_PAYLOAD, FrameError

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmconnect.direct.copy.frames import Bytes

__all__ = ["Pipe"]

_FLUSH_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 19


class Pipe:
    """Both directions; one thread may put while another takes.

    ``read_into`` returns how many bytes came, 0 at the end; ``write`` writes all that it is given,
    one buffer after the other.
    """

    def __init__(
        self, read_into: Callable[[memoryview], int], write: Callable[..., object]
    ) -> None:
        self._read_into = read_into
        self._write = write
        self._out = bytearray()
        self._in = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0

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

    def take(self) -> tuple[int, memoryview]:
        """Return the next frame; its payload is valid until the next call.

        Raises EOFError at the end, FrameError for a frame that is too long.
        """
        self._have(HEADER.size)
        kind, length = HEADER.unpack_from(self._in, self._start)
        if length > MAX_PAYLOAD:
            raise FrameError(f"a frame of {length} bytes")
        self._start += HEADER.size
        self._have(length)
        payload = self._in[self._start : self._start + length]
        self._start += length
        return kind, payload

    def _have(self, count: int) -> None:
        """Read until that many bytes are there, in one piece."""
        held = self._end - self._start
        if held >= count:
            return
        if len(self._in) - self._start < count or not held:
            self._in[:held] = self._in[self._start : self._end]
            self._start, self._end = 0, held
        while self._end - self._start < count:
            got = self._read_into(self._in[self._end :])
            if not got:
                raise EOFError
            self._end += got
