"""The bytes that a server sent and that are not yet read.

A byte is copied as seldom as can be: the network is read into `Inbox.next_buffer`, which is a
piece of the framebuffer itself while pixels come that can go straight there; a large piece of
memory that is at hand already (a recording) is read where it lies.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

__all__ = ["EndOfStreamError", "Inbox", "Reading"]

_T = TypeVar("_T")

Reading = Generator[None, None, _T]
"""A step that reads: it yields whenever the bytes that are here do not suffice.

``yield from`` joins steps to larger ones; whoever drives them resumes when bytes have come.
"""


class EndOfStreamError(Exception):
    """No more bytes will come: thrown into the step that waits for some."""


_CAPACITY = 256 * 1024

# What is declared to come gets memory at once up to this; beyond it, as much as has come again.
_AHEAD = 16 * 1024 * 1024

# As much unread is moved to the front whenever more is to come.
_LITTLE = 8 * 1024

# Less room than this at the end, and the rest is moved to the front.
_LEAST_READ = 64 * 1024


class Inbox:
    """A queue of bytes with one writer and one reader, in one thread.

    ``offset`` counts the bytes that were read, from the connection's first.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._own = memoryview(bytearray(_CAPACITY))
        # Unread is _view[_start:_stop]; _view is _own, or what is lent to `read_from`.
        self._view = self._own
        self._start = 0
        self._stop = 0
        # How many unread bytes the reader waits for.
        self._wanted = 0
        # What of the reader's own memory is still to be filled.
        self._target: memoryview | None = None

    # What a reader uses.

    @property
    def available(self) -> int:
        """How many bytes are here to be read."""
        return self._stop - self._start

    def need(self, count: int) -> Reading[None]:
        """Wait until ``count`` bytes are here, in one piece.

        The caller has bounded ``count``. Memory is taken for 16 MiB of it at once, and then for
        twice what has come: who declares much must send it.
        """
        while self.available < count:
            self._wanted = count
            yield
        self._wanted = 0

    def need_more(self) -> Reading[None]:
        """Wait until more bytes are here than now."""
        return self.need(self.available + 1)

    def read(self, count: int) -> Reading[memoryview]:
        """Return the next ``count`` bytes; they stay as they are until the next wait."""
        yield from self.need(count)
        return self.take(count)

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes, which the caller knows to be here."""
        taken = self._view[self._start : self._start + count]
        self.consume(count)
        return taken

    def peek(self, count: int) -> memoryview:
        """Return at most ``count`` of the bytes that are here, and leave them unread."""
        return self._view[self._start : min(self._start + count, self._stop)]

    def window(self) -> tuple[memoryview, int, int]:
        """Return memory, and from where to where in it the unread bytes are."""
        return self._view, self._start, self._stop

    def consume(self, count: int) -> None:
        """Count the next bytes as read."""
        self._start += count
        self.offset += count

    def fill(self, target: memoryview) -> Reading[None]:
        """Read into ``target``, writable bytes in one piece, until it is full."""
        count = min(self.available, len(target))
        target[:count] = self.take(count)
        while count < len(target):
            self._target = target[count:]
            yield
            count = len(target) - (len(self._target) if self._target is not None else 0)
        self._target = None

    def skip(self, count: int) -> Reading[None]:
        """Read ``count`` bytes, however many, and forget them."""
        while count:
            if not self.available:
                yield from self.need(1)
            step = min(count, self.available)
            self.consume(step)
            count -= step

    # What a writer uses.

    def next_buffer(self) -> memoryview:
        """Return where the next bytes belong: at least one byte long."""
        if self._target is not None:
            return self._target
        self._reserve(_LEAST_READ)
        return self._own[self._stop :]

    def commit(self, count: int) -> None:
        """Note that ``count`` bytes were written to `next_buffer`."""
        if self._target is not None:
            self._target = self._target[count:]
            self.offset += count
        else:
            self._stop += count

    def copy_from(self, data: memoryview) -> int:
        """Copy as much of ``data`` as the reader waits for; return how much, at least one byte.

        Who has waited for much may wait for a little more next: a part of it is copied as well,
        so that many small waits cost no more than one large one.
        """
        if self._target is not None:
            room = self._target
        else:
            missing = max(1, self._wanted - self.available, self.available // 4)
            missing = min(missing, len(data))
            self._reserve(missing)
            room = self._own[self._stop : self._stop + missing]
        count = min(len(data), len(room))
        room[:count] = data[:count]
        self.commit(count)
        return count

    @property
    def filling(self) -> bool:
        """Whether `next_buffer` is the reader's own memory, who waits until it is full."""
        return self._target is not None

    @property
    def lendable(self) -> bool:
        """Whether nothing unread is here, so that bytes may be read where they lie."""
        return self._target is None and not self.available

    def lend(self, data: memoryview) -> None:
        """Let the reader read ``data`` where it lies; `reclaim` must follow."""
        self._view, self._start, self._stop = data, 0, len(data)

    def reclaim(self) -> None:
        """Take back what was lent; what is unread of it is copied."""
        rest = self._view[self._start : self._stop]
        self._view, self._start, self._stop = self._own, 0, 0
        if rest:
            self._reserve(len(rest))
            self._own[: len(rest)] = rest
            self._stop = len(rest)

    def _reserve(self, room: int) -> None:
        """Make room for more bytes after the unread ones, and for all that is waited for."""
        unread = self.available
        if not unread:
            self._start = self._stop = 0
        size = len(self._own)
        if unread <= _LITTLE and self._start and self._view is self._own:
            # The whole room for the network, for hardly anything.
            self._own[:unread] = bytes(self._own[self._start : self._stop])
            self._start, self._stop = 0, unread
        if self._stop + room <= size and self._start + min(self._wanted, _AHEAD) <= size:
            return
        need = max(unread + room, min(self._wanted, max(_AHEAD, 2 * unread)))
        target = self._own
        if need > len(target):
            # Mostly once to the size that is known to be needed: no byte is moved for growth.
            target = memoryview(bytearray(need + _LEAST_READ))
        elif len(target) > _CAPACITY and need <= _CAPACITY:
            target = memoryview(bytearray(_CAPACITY))
        target[:unread] = bytes(self._own[self._start : self._stop])
        self._own = self._view = target
        self._start, self._stop = 0, unread
