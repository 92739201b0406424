"""Reading ahead in a thread: a large file while what came before is sent, a wire while it is taken.

Both ends of a copy wait half the time, for the disk or the wire, and compute checksums in the other
half; in a guest with two processors the one hides the other.

This module runs in guests, too; so it is `_thread` and `_queue`, which cost nothing to import.
"""

from __future__ import annotations

import zlib
from _queue import SimpleQueue
from _thread import start_new_thread

from vmconnect.direct.copy.frames import BLOCK_BYTES, OFFSET

TYPE_CHECKING = False  # typing's own takes an emulated guest a tenth of a second to import
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

__all__ = ["FileAhead", "ShrunkError", "WireAhead"]

_BLOCKS = 4
_WIRE_BYTES = 1 << 17


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


class WireAhead:
    """Bytes of a wire, read by a thread before they are asked for; up to half a megabyte."""

    def __init__(self, read_into: Callable[[memoryview], int]) -> None:
        self._read_into = read_into
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, int]] = SimpleQueue()
        for _ in range(_BLOCKS):
            self._free.put(memoryview(bytearray(_WIRE_BYTES)))
        self._block: memoryview | None = None
        self._place = self._end = 0
        start_new_thread(self._run, ())

    def read_into(self, view: memoryview) -> int:
        """Read into ``view``, and return how many bytes came, 0 at the end."""
        if self._block is None:
            self._block, self._end = self._full.get()
            self._place = 0
        count = min(len(view), self._end - self._place)
        view[:count] = self._block[self._place : self._place + count]
        self._place += count
        if self._place == self._end and self._end:
            self._free.put(self._block)
            self._block = None
        return count

    def _run(self) -> None:
        count = 1
        while count:
            block = self._free.get()
            try:
                count = self._read_into(block)
            except OSError:
                count = 0  # Whoever was there is not there any more.
            self._full.put((block, count))
