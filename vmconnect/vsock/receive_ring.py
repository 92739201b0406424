"""The guest's receive ring: room for packets, filled from here.

Buffers are taken from the ring once and kept at hand, so that one ``recvmsg`` can spread a
client's bytes over many of them, with no copy in between, before it is known how many it needs.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from vmconnect.errors import VsockError
from vmconnect.vsock.packet import HEADER, HEADER_BYTES, Header
from vmconnect.vsock.virtqueue import Virtqueue

__all__ = ["ReceiveRing", "split"]

# Views of one recvmsg; IOV_MAX is 1024.
_MAX_VIEWS: Final = 256
# Buffers taken ahead. Not the whole ring: each may be a chain as long as the ring.
_AT_HAND: Final = 64


class _Buffer(NamedTuple):
    """One buffer of the guest's: where the header goes, where the payload, how much of it."""

    head: int
    header: list[memoryview]
    payload: list[memoryview]
    room: int


def split(views: list[memoryview], count: int) -> tuple[list[memoryview], list[memoryview]]:
    """Return the first ``count`` bytes of ``views`` and the rest; fewer if there are not so many.

    The guest may cut a packet into descriptors wherever it likes.
    """
    before: list[memoryview] = []
    for place, view in enumerate(views):
        if len(view) > count:
            if count:
                before.append(view[:count])
            return before, [view[count:], *views[place + 1 :]]
        before.append(view)
        count -= len(view)
        if not count:
            return before, views[place + 1 :]
    return before, []


class ReceiveRing:
    """Puts packets into the guest's buffers, in order."""

    def __init__(self, ring: Virtqueue):
        """Fill ``ring``, which must be a writable one."""
        self._ring = ring
        self._buffers: deque[_Buffer] = deque()
        ring.suppress_kicks()

    @property
    def base(self) -> int:
        """The ring entry where a later start has to go on."""
        return (self._ring.base - len(self._buffers)) & 0xFFFF

    def has_room(self) -> bool:
        """Whether a packet can go out; if not, the guest will kick when it has made room.

        Raises VsockError for a broken ring, or a buffer that has no room for one byte.
        """
        if self._buffers:
            return True
        self._ring.suppress_kicks()
        while True:
            self._take(_AT_HAND)
            if self._buffers:
                return True
            if not self._ring.want_kicks():
                return False

    def put(self, header: Header) -> None:
        """Send a packet without payload; there must be room."""
        buffer = self._buffers.popleft()
        self._write(buffer, header)
        self._ring.push(buffer.head, HEADER_BYTES)

    def room(self, limit: int, buffers: int) -> list[memoryview]:
        """Return where the payloads of the next packets go: at most ``limit`` bytes of views.

        ``buffers`` is how many buffers to use at most. Nothing is used until `commit`. Raises
        what `has_room` raises.
        """
        self._take(min(buffers, _AT_HAND))
        views: list[memoryview] = []
        for buffer in self._buffers:
            if buffer.room >= limit:
                views += split(buffer.payload, limit)[0]
                break
            views += buffer.payload
            limit -= buffer.room
            buffers -= 1
            if not buffers or len(views) >= _MAX_VIEWS:
                break
        return views[:_MAX_VIEWS]

    def commit(self, header: Header, count: int) -> int:
        """Send the first ``count`` bytes that were put into `room`, as packets like ``header``.

        Returns how many packets they became.
        """
        packets = 0
        while count:
            buffer = self._buffers.popleft()
            length = min(count, buffer.room)
            self._write(buffer, header._replace(length=length))
            self._ring.push(buffer.head, HEADER_BYTES + length)
            count -= length
            packets += 1
        return packets

    def publish(self) -> bool:
        """Let the guest see all that was put; return whether it wants an interrupt for it."""
        return self._ring.publish()

    def _take(self, count: int) -> None:
        """Have ``count`` buffers at hand, or all that there are."""
        while len(self._buffers) < count and (chain := self._ring.pop()) is not None:
            head, views = chain
            header, payload = split(views, HEADER_BYTES)
            room = sum(map(len, payload))
            if not room:
                raise VsockError("a receive buffer with no room for a payload")
            self._buffers.append(_Buffer(head, header, payload, room))

    @staticmethod
    def _write(buffer: _Buffer, header: Header) -> None:
        if len(buffer.header) == 1:
            HEADER.pack_into(buffer.header[0], 0, *header)
            return
        data = header.pack()
        for view in buffer.header:
            view[:] = data[: len(view)]
            data = data[len(view) :]
