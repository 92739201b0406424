"""Reading ahead in a thread: a large file while it is sent, frames while they are dealt with.

Both ends of a copy wait half the time, for the disk or the wire, and compute checksums in the other
half; in a guest with two processors the one hides the other.

This module runs in guests, too; so it is `_thread` and `_queue`, which cost nothing to import.
"""

from __future__ import annotations

import zlib
from _queue import SimpleQueue
from _thread import start_new_thread

from vmconnect.direct.copy.frames import BLOCK_BYTES, OFFSET
from vmconnect.direct.copy.reader import BUFFER_BYTES, FrameReader

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

__all__ = ["FileAhead", "FramesAhead", "ShrunkError"]

_BLOCKS = 4
_BUFFERS = 3


class ShrunkError(Exception):
    """A file has become shorter while it was read."""


class FileAhead:
    """The payloads of a file's DATA frames, read and summed up by a thread.

    ``crc`` is the CRC-32 of all that `payloads` has given.
    """

    def __init__(self, source: Any, start: int) -> None:
        self._source = source
        self._start = start
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview | None, int]] = SimpleQueue()
        self._error: BaseException | None = None
        self.crc = 0

    def payloads(self) -> Generator[memoryview, None, None]:
        """Give one after the other, each valid until the next; what reading raises is raised."""
        for _ in range(_BLOCKS):
            self._free.put(memoryview(bytearray(OFFSET.size + BLOCK_BYTES)))
        start_new_thread(self._run, ())
        payload: memoryview | None = None
        try:
            while True:
                payload, size = self._full.get()
                if payload is None:
                    break
                yield payload[:size]
                self._free.put(payload)
        finally:
            # The thread reads from a descriptor that may be another's in a moment.
            self._free.put(None)
            while payload is not None:
                payload, _ = self._full.get()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 (raised again in the other thread)
            self._error = error
        self._full.put((None, 0))

    def _read(self) -> None:
        source, crc, head = self._source, 0, OFFSET.size
        for begin, end in source.extents():
            place = max(begin, self._start)
            while place < end:
                payload = self._free.get()
                if payload is None:
                    return
                block = payload[head:]
                count = source.read_into(place, block[: end - place])
                if not count:
                    raise ShrunkError
                OFFSET.pack_into(payload, 0, place)
                self.crc = crc = zlib.crc32(block[:count], crc)
                self._full.put((payload, head + count))
                place += count


class FramesAhead:
    """Frames of a wire, read by a thread before they are asked for; up to three megabytes."""

    def __init__(self, read_into: Callable[[memoryview], int]) -> None:
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[int, memoryview] | BaseException] = SimpleQueue()
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(BUFFER_BYTES)))
        self._reader = FrameReader(read_into, self._free.get)
        self._used: Any = None
        start_new_thread(self._run, ())

    def take(self) -> tuple[int, memoryview]:
        """Return the next frame; its payload is valid until the next call.

        Raises EOFError at the end, FrameError for a frame that is too long.
        """
        frame = self._full.get()
        if isinstance(frame, BaseException):
            self._full.put(frame)  # for whoever asks again
            raise frame
        used = frame[1].obj
        if used is not self._used:
            if self._used is not None:
                self._free.put(memoryview(self._used))
            self._used = used
        return frame

    def _run(self) -> None:
        try:
            while True:
                self._full.put(self._reader.take())
        except OSError:
            self._full.put(EOFError())  # Whoever was there is not there any more.
        except BaseException as error:  # noqa: BLE001 (raised again in the other thread)
            self._full.put(error)
