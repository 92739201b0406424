"""A machine without QEMU: the front end and the guest's driver, both played by the test.

The front end speaks vhost-user to a device process; the driver fills the rings in a memfd that
they share, as Linux's does, or as a hostile guest would.
"""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.vsock.message import Region, Request, RingAddress, encode_ring_state, encode_u64
from vmconnect.vsock.packet import HEADER, HEADER_BYTES, HOST_CID, STREAM, Header, Op

__all__ = ["CID", "ENTRIES", "Device", "Machine", "Ring"]

CID = 5
ENTRIES = 128
WAIT = 30.0

_MEMORY = 4 << 20
_GUEST_BASE, _USER_BASE = 0x10_0000, 0x7F00_0000_0000
_BUFFER = 4096
_VERSION_1, _PROTOCOL = 1 << 32, 1 << 30


class Device:
    """``vmconnect vsock-device`` in a process of its own."""

    def __init__(self, directory: Path):
        self.socket, self.uds = str(directory / "vu"), str(directory / "vsock")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "vmconnect", "vsock-device"),
                *("--socket", self.socket, "--uds", self.uds, "--cid", str(CID)),
            ],
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert line.startswith(b"ready: "), line

    def stop(self) -> bytes:
        """End it as a person would, and return what it said."""
        self.process.terminate()
        _out, said = self.process.communicate(timeout=WAIT)
        assert self.process.returncode == 0, said
        return said

    def connect(self, port: int) -> socket.socket:
        """Ask for a port of the guest's; the answer has not been read yet."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(WAIT)
        client.connect(self.uds)
        client.sendall(b"CONNECT %d\n" % port)
        return client


class Ring:
    """One split virtqueue, from the driver's side."""

    def __init__(self, memory: mmap.mmap, offset: int):
        self.memory = memory
        self.descriptors = offset
        self.available = offset + 16 * ENTRIES
        self.used = self.available + 4096
        self.made_available = self.seen = 0
        # struct.pack_into clears the place first, and the device may look at that moment.
        self._index = memoryview(memory)[self.available + 2 : self.available + 4].cast("H")
        self.kick, self.call = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)

    def describe(self, index: int, address: int, length: int, flags: int, following: int) -> None:
        """Write a descriptor, whatever it says."""
        struct.pack_into(
            "<QIHH",
            self.memory,
            self.descriptors + 16 * index,
            address,
            length & 0xFFFF_FFFF,
            flags & 0xFFFF,
            following & 0xFFFF,
        )

    def offer(self, head: int) -> None:
        """Make a chain available."""
        place = self.available + 4 + 2 * (self.made_available % ENTRIES)
        struct.pack_into("<H", self.memory, place, head & 0xFFFF)
        self.made_available += 1
        self._index[0] = self.made_available & 0xFFFF

    def notify(self) -> None:
        """Kick, unless the device asked not to be told."""
        (flags,) = struct.unpack_from("<H", self.memory, self.used)
        if not flags & 1:
            os.eventfd_write(self.kick, 1)

    def take(self) -> tuple[int, int] | None:
        """Return the next used chain's head and length, None if there is none."""
        (index,) = struct.unpack_from("<H", self.memory, self.used + 2)
        if index == self.seen & 0xFFFF:
            return None
        place = self.used + 4 + 8 * (self.seen % ENTRIES)
        self.seen += 1
        head, length = struct.unpack_from("<II", self.memory, place)
        return head, length

    def forget(self) -> None:
        """Begin anew, as a driver does after a reset."""
        self.made_available = self.seen = 0
        self.memory[self.descriptors : self.used + 4 + 8 * ENTRIES] = bytes(
            self.used + 4 + 8 * ENTRIES - self.descriptors
        )

    def close(self) -> None:
        """Close the eventfds, and let go of the memory."""
        self._index.release()
        os.close(self.kick)
        os.close(self.call)


class Machine:
    """A front end with a guest's driver; packets go in and come out."""

    def __init__(self, device: Device):
        self.file = os.memfd_create("guest")
        os.ftruncate(self.file, _MEMORY)
        self.memory = mmap.mmap(self.file, _MEMORY)
        self.receive_ring, self.transmit_ring = Ring(self.memory, 0), Ring(self.memory, 1 << 16)
        self._receive_buffers, self._transmit_buffers = 1 << 20, 2 << 20
        self._free: deque[int] = deque()
        self._arrived: deque[tuple[Header, bytes]] = deque()
        self.control = socket.socket(socket.AF_UNIX)
        self.control.settimeout(WAIT)
        self.control.connect(device.socket)
        features = self.ask(Request.GET_FEATURES)
        assert features & _VERSION_1
        assert features & _PROTOCOL
        self.ask(Request.GET_PROTOCOL_FEATURES)
        self.tell(Request.SET_PROTOCOL_FEATURES, encode_u64(1 << 9 | 1 << 3))
        self.tell(Request.SET_OWNER)
        self.start()

    # The front end.

    def tell(self, request: int, payload: bytes = b"", *fds: int) -> None:
        """Send a request that has no reply."""
        message = struct.pack("<III", request, 1, len(payload)) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.control.sendmsg([message], rights)

    def ask(self, request: int, payload: bytes = b"") -> int:
        """Send a request and return the last eight bytes of its reply as a number."""
        self.tell(request, payload)
        head = self.control.recv(12, socket.MSG_WAITALL)
        assert len(head) == 12, "the device hung up"
        answered, flags, size = struct.unpack("<III", head)
        assert (answered, flags) == (request, 5)
        body = self.control.recv(size, socket.MSG_WAITALL)
        return int.from_bytes(body[-8:], "little")

    def start(self, bases: tuple[int, int] = (0, 0)) -> None:
        """Share the memory and start both rings."""
        self.tell(Request.SET_FEATURES, encode_u64(_VERSION_1 | _PROTOCOL))
        region = Region(_GUEST_BASE, _MEMORY, _USER_BASE, 0)
        self.tell(
            Request.SET_MEM_TABLE,
            struct.pack("<II", 1, 0) + struct.pack("<QQQQ", *region),
            self.file,
        )
        for number, ring in enumerate((self.receive_ring, self.transmit_ring)):
            where = RingAddress(
                number,
                0,
                _USER_BASE + ring.descriptors,
                _USER_BASE + ring.used,
                _USER_BASE + ring.available,
                0,
            )
            self.tell(Request.SET_VRING_NUM, encode_ring_state(number, ENTRIES))
            self.tell(Request.SET_VRING_BASE, encode_ring_state(number, bases[number]))
            self.tell(Request.SET_VRING_ADDR, struct.pack("<IIQQQQ", *where))
            self.tell(Request.SET_VRING_KICK, encode_u64(number), ring.kick)
            self.tell(Request.SET_VRING_CALL, encode_u64(number), ring.call)
            self.tell(Request.SET_VRING_ENABLE, encode_ring_state(number, 1))
        if bases == (0, 0):
            self._free = deque(range(0, ENTRIES, 2))
            for index in range(ENTRIES):
                self._post(index)
        self.receive_ring.notify()
        # It has taken all of this when it answers.
        self.ask(Request.GET_FEATURES)

    def stop(self) -> tuple[int, int]:
        """Stop both rings and return where they stopped."""
        first = self.ask(Request.GET_VRING_BASE, encode_ring_state(0, 0)) >> 32
        second = self.ask(Request.GET_VRING_BASE, encode_ring_state(1, 0)) >> 32
        return first, second

    def reset(self) -> None:
        """Do what QEMU and a guest do together when the guest reboots."""
        self.stop()
        self._arrived.clear()
        self.receive_ring.forget()
        self.transmit_ring.forget()
        self.start()

    def close(self) -> None:
        """Be gone, as a QEMU that ends."""
        self.control.close()
        self.receive_ring.close()
        self.transmit_ring.close()
        self.memory.close()
        os.close(self.file)

    # The driver.

    def _post(self, index: int) -> None:
        address = _GUEST_BASE + self._receive_buffers + index * _BUFFER
        self.receive_ring.describe(index, address, _BUFFER, 2, 0)
        self.receive_ring.offer(index)

    def transmit(self, packet: bytes, payload: bytes = b"", *, notify: bool = True) -> None:
        """Queue a packet: its header in one descriptor, its payload in another."""
        ring, deadline = self.transmit_ring, Deadline(WAIT)
        while not self._reclaim():
            deadline.check("waiting for room to transmit")
            select.select([ring.call], [], [], 0.01)
        head = self._free.popleft()
        place = self._transmit_buffers + head * (_BUFFER * 2)
        for index, data, flags in ((head, packet, 1 if payload else 0), (head + 1, payload, 0)):
            start = place + (index - head) * 64
            self.memory[start : start + len(data)] = data
            ring.describe(index, _GUEST_BASE + start, len(data), flags, head + 1)
        ring.offer(head)
        if notify:
            ring.notify()

    def wait_transmitted(self) -> None:
        """Wait until the device has taken all that was queued."""
        deadline = Deadline(WAIT)
        while self._reclaim() < ENTRIES // 2:
            deadline.check("waiting for what was queued to be taken")
            select.select([self.transmit_ring.call], [], [], 0.01)

    def _reclaim(self) -> int:
        while (used := self.transmit_ring.take()) is not None:
            self._free.append(used[0])
        return len(self._free)

    def send(
        self,
        op: int,
        guest_port: int,
        host_port: int,
        payload: bytes = b"",
        *,
        flags: int = 0,
        buf_alloc: int = 1 << 16,
        fwd_cnt: int = 0,
    ) -> None:
        """Send a packet of a connection."""
        header = Header(
            CID,
            HOST_CID,
            guest_port,
            host_port,
            len(payload),
            STREAM,
            op,
            flags,
            buf_alloc,
            fwd_cnt & 0xFFFF_FFFF,
        )
        self.transmit(header.pack(), payload)

    def receive(self, timeout: float = WAIT) -> tuple[Header, bytes] | None:
        """Return the next packet from the device, None if none comes in time."""
        ring, deadline = self.receive_ring, Deadline(timeout)
        while not self._arrived:
            while (used := ring.take()) is not None:
                index, length = used
                start = self._receive_buffers + index * _BUFFER
                data = self.memory[start : start + length]
                header = Header._make(HEADER.unpack_from(data))
                assert header.length == length - HEADER_BYTES
                self._arrived.append((header, data[HEADER_BYTES:]))
                self._post(index)
            ring.notify()
            if not self._arrived:
                if deadline.passed:
                    return None
                # What may have come between looking and waiting is seen at the next turn.
                if select.select([ring.call], [], [], 0.01)[0]:
                    os.eventfd_read(ring.call)
        return self._arrived.popleft()

    def expect(self, *ops: Op) -> tuple[Header, bytes]:
        """Return the next packet, which is one of these; credit updates are passed over."""
        while True:
            packet = self.receive()
            assert packet is not None, f"none of {ops} came"
            if packet[0].op in ops:
                return packet
            assert packet[0].op == Op.CREDIT_UPDATE, packet[0]
