"""A split virtqueue, seen from the device (virtio 1.2, section 2.7).

What is read here is the guest's word, and may change while it is read: every field is read once,
and checked after that.

Memory order. The ring's indices are read and written through memoryviews cast to ``H``, which
CPython copies with one 16-bit load or store (``struct`` with ``<`` would go byte by byte). x86
keeps loads among loads and stores among stores in order (TSO), so the entries of a ring are
seen before its index without more ado; the one thing that it may swap is a store with a later
load, and there `_fence` stands. On a weakly ordered processor (aarch64) plain CPython cannot give
the order of entries and index: the interpreter's own locks make a mistake unlikely, not
impossible. The hosts that this device is for are x86.
"""

from __future__ import annotations

import struct
import sys
import threading
from typing import Final

from vmconnect.errors import UnsupportedError, VhostUserError, VsockError
from vmconnect.vsock.memory import GuestMemory
from vmconnect.vsock.message import RingAddress

__all__ = ["MAX_SIZE", "Chain", "Virtqueue"]

# QEMU's vhost-user-vsock has 128 entries; more than this would outgrow an iovec (IOV_MAX).
MAX_SIZE: Final = 1024

_DESCRIPTOR: Final = struct.Struct("<QIHH")
_NEXT: Final = 1
_WRITE: Final = 2
_U16: Final = 0xFFFF

_AVAIL_NO_INTERRUPT: Final = 1
_USED_NO_NOTIFY: Final = 1

Chain = tuple[int, list[memoryview]]
"""A buffer from the guest: its first descriptor's index, and its bytes."""

_lock = threading.Lock()


def _fence() -> None:
    """Keep a store before a later load: taking a free lock is a locked instruction on x86."""
    with _lock:
        pass


class Virtqueue:
    """One ring: take chains, give them back used, and know when the guest wants to hear of it.

    ``writable`` says which way the buffers go: True for the ring that the guest receives from.
    Errors about what is in the ring are VsockError and leave it unusable.
    """

    def __init__(
        self, memory: GuestMemory, size: int, address: RingAddress, base: int, *, writable: bool
    ):
        """Find the ring of ``size`` entries in ``memory``, and go on from entry ``base``.

        Raises VhostUserError for a size or an address that no ring can have.
        """
        if sys.byteorder != "little":
            raise UnsupportedError("virtio rings are little-endian, and this processor is not")
        if not 0 < size <= MAX_SIZE or size & (size - 1):
            raise VhostUserError(f"a ring of {size} entries")
        if address.descriptors % 16 or address.available % 2 or address.used % 4:
            raise VhostUserError("a ring's address is not aligned")
        self._memory = memory
        self._size = size
        self._mask = size - 1
        self._descriptors = memory.user(address.descriptors, 16 * size)
        self._avail = memory.user(address.available, 4 + 2 * size).cast("H")
        used = memory.user(address.used, 4 + 8 * size)
        self._used_head = used[:4].cast("H")
        self._used = used[4:].cast("I")
        self._direction = _WRITE if writable else 0
        self._next = self._seen = base & _U16
        self._used_next = self._published = int(self._used_head[1])
        self.kicks_suppressed = True
        """Whether the guest may not know that it should kick; so it is with a ring taken over."""

    @property
    def base(self) -> int:
        """The entry that will be taken next; where a later start has to go on."""
        return self._next

    def pop(self) -> Chain | None:
        """Take the next buffer that the guest made available, None if there is none.

        Raises VsockError for an index, descriptor or chain that breaks the ring.
        """
        entry = self._next
        if entry == self._seen:
            seen = self._avail[1]
            if seen == entry:
                return None
            if (seen - entry) & _U16 > self._size:
                raise VsockError(f"the available index jumped from {entry} to {seen}")
            self._seen = seen
        head = index = self._avail[2 + (entry & self._mask)]
        views: list[memoryview] = []
        for _ in range(self._size):
            if index >= self._size:
                raise VsockError(f"descriptor {index} in a ring of {self._size}")
            address, length, flags, following = _DESCRIPTOR.unpack_from(
                self._descriptors, index * 16
            )
            # Neither the other direction nor an indirect table, which was not negotiated.
            if flags & ~_NEXT != self._direction:
                raise VsockError(f"descriptor {index} has the flags {flags:#x}")
            if not length:
                raise VsockError(f"descriptor {index} is empty")
            self._memory.collect(views, address, length)
            if not flags & _NEXT:
                self._next = (entry + 1) & _U16
                return head, views
            index = following
        raise VsockError(f"the chain at descriptor {head} has no end")

    def push(self, head: int, written: int) -> None:
        """Give a buffer back, with ``written`` bytes in it; the guest sees it when published."""
        slot = (self._used_next & self._mask) * 2
        self._used[slot] = head
        self._used[slot + 1] = written
        self._used_next = (self._used_next + 1) & _U16

    def publish(self) -> bool:
        """Let the guest see what was pushed; return whether it wants an interrupt for it."""
        if self._published == self._used_next:
            return False
        self._published = self._used_head[1] = self._used_next
        _fence()
        return not self._avail[0] & _AVAIL_NO_INTERRUPT

    def suppress_kicks(self) -> None:
        """Ask the guest not to tell of new buffers; it may still do so."""
        self.kicks_suppressed = True
        self._used_head[0] = _USED_NO_NOTIFY

    def want_kicks(self) -> bool:
        """Ask the guest to tell of new buffers; return whether some are there already."""
        self.kicks_suppressed = False
        self._used_head[0] = 0
        _fence()
        return bool(self._avail[1] != self._next)
