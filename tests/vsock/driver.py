"""A guest's driver in the same process: real rings and a real switch, one step at a time."""

from __future__ import annotations

import mmap
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from vmconnect.vsock.memory import GuestMemory
from vmconnect.vsock.message import Region, RingAddress
from vmconnect.vsock.packet import HEADER, HEADER_BYTES, HOST_CID, STREAM, Header
from vmconnect.vsock.poller import Poller
from vmconnect.vsock.switch import Switch
from vmconnect.vsock.virtqueue import Virtqueue

from .rig import CID, ENTRIES, Ring

__all__ = ["Driver"]

_MEMORY = 2 << 20
_GUEST, _USER = 0x10_0000, 0x7F00_0000_0000
_TRANSMIT_RING, _RECEIVE_BUFFERS, _TRANSMIT_BUFFER = 1 << 16, 1 << 20, 1 << 19


class Driver:
    """Both rings of a guest, and the switch that serves them; nothing happens but by a call."""

    def __init__(self, dial: Callable[[int], socket.socket | None], limit: int = 64):
        self.file = os.memfd_create("guest")
        os.ftruncate(self.file, _MEMORY)
        self.memory = mmap.mmap(self.file, _MEMORY)
        self.receive_ring = Ring(self.memory, 0)
        self.transmit_ring = Ring(self.memory, _TRANSMIT_RING)
        self._guest_memory = GuestMemory([Region(_GUEST, _MEMORY, _USER, 0)], [self.file])
        self._unposted = deque(range(ENTRIES))
        self.poller = Poller()
        self.switch = Switch(CID, self.poller, dial, limit)
        self.start((0, 0))

    def start(self, bases: tuple[int, int]) -> None:
        """Let the switch serve the rings, from those entries on."""
        self.switch.start(self._queue(0, bases[0]), self._queue(1, bases[1]))

    def stop(self) -> tuple[int, int]:
        """Stop the rings, and return where."""
        bases = self.switch.bases
        assert bases is not None
        self.switch.stop()
        return bases

    def _queue(self, number: int, base: int) -> Virtqueue:
        ring = self.transmit_ring if number else self.receive_ring
        places = (_USER + ring.descriptors, _USER + ring.used, _USER + ring.available)
        address = RingAddress(number, 0, *places, 0)
        return Virtqueue(self._guest_memory, ENTRIES, address, base, writable=not number)

    def give(self, count: int, room: int) -> None:
        """Make receive buffers available, each with ``room`` for a payload, if any are left."""
        for _ in range(min(count, len(self._unposted))):
            index = self._unposted.popleft()
            place = _GUEST + _RECEIVE_BUFFERS + index * 4096
            self.receive_ring.describe(index, place, HEADER_BYTES + room, 2, 0)
            self.receive_ring.offer(index)

    def send(
        self,
        op: int,
        ports: tuple[int, int],
        payload: bytes = b"",
        *,
        cuts: Sequence[int] = (),
        flags: int = 0,
        buf_alloc: int = 1 << 16,
        fwd_cnt: int = 0,
    ) -> None:
        """Send a packet, its payload in pieces of the lengths ``cuts`` and what is left."""
        header = Header(
            *(CID, HOST_CID, *ports, len(payload), STREAM, op, flags, buf_alloc),
            fwd_cnt & 0xFFFF_FFFF,
        )
        start = _TRANSMIT_BUFFER
        packet = header.pack() + payload
        self.memory[start : start + len(packet)] = packet
        pieces, left = [HEADER_BYTES], len(payload)
        for cut in cuts:
            if left > cut > 0:
                pieces.append(cut)
                left -= cut
        pieces += [left] if left else []
        for index, length in enumerate(pieces):
            more = 1 if index + 1 < len(pieces) else 0
            self.transmit_ring.describe(index, _GUEST + start, length, more, index + 1)
            start += length
        self.transmit_ring.offer(0)
        self.switch.transmit()
        assert self.transmit_ring.take() is not None

    def turn(self) -> list[tuple[Header, bytes]]:
        """Let the switch work until it has nothing to do; return what it gave to the guest."""
        came: list[tuple[Header, bytes]] = []
        more = True
        while more:
            self.poller.poll(0)
            _interrupt, more = self.switch.receive()
            while (used := self.receive_ring.take()) is not None:
                index, length = used
                start = _RECEIVE_BUFFERS + index * 4096
                data = self.memory[start : start + length]
                came.append((Header._make(HEADER.unpack_from(data)), data[HEADER_BYTES:]))
                self._unposted.append(index)
        return came

    def close(self) -> None:
        """End the switch and let go of the memory."""
        self.switch.close()
        self.poller.close()
        self.receive_ring.close()
        self.transmit_ring.close()
        self.memory.close()
        os.close(self.file)
