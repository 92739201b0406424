"""A session with a vhost-user front end: QEMU's requests, carried out.

The front end says where the guest's memory and rings are; as soon as both rings are complete they
go to the switch, and when either is stopped they come back. Requests may come in any order that
makes sense; what makes none is a VhostUserError and ends the session, never the device.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

from vmconnect.errors import VhostUserError
from vmconnect.vsock.memory import GuestMemory
from vmconnect.vsock.message import (
    MAX_FDS,
    Message,
    MessageParser,
    Request,
    RingAddress,
    encode_config,
    encode_reply,
    encode_ring_state,
    encode_u64,
)
from vmconnect.vsock.poller import EDGE, READABLE, Poller
from vmconnect.vsock.switch import Switch
from vmconnect.vsock.virtqueue import Virtqueue

__all__ = ["FrontEnd"]

_VERSION_1: Final = 1 << 32
_PROTOCOL_FEATURES: Final = 1 << 30
_FEATURES: Final = _VERSION_1 | _PROTOCOL_FEATURES

_REPLY_ACK: Final = 1 << 3
_CONFIG: Final = 1 << 9
_PROTOCOL: Final = _REPLY_ACK | _CONFIG

# The rings that vhost sees; QEMU keeps the event ring to itself.
_RECEIVE: Final = 0
_TRANSMIT: Final = 1

_MANY: Final = range(1, MAX_FDS + 1)
_ONE_OR_NONE: Final = range(2)
_NONE: Final = range(1)


class _Ring:
    """What the front end has said of a ring."""

    def __init__(self) -> None:
        self.size = 0
        self.address: RingAddress | None = None
        self.base = 0
        self.kick = -1
        self.call = -1
        self.error = -1
        self.enabled = False

    @property
    def complete(self) -> bool:
        return self.enabled and self.kick >= 0 and self.address is not None and self.size > 0


class FrontEnd:
    """One connected front end; its owner calls `close` when it leaves or has to."""

    def __init__(self, sock: socket.socket, poller: Poller, switch: Switch, guest_cid: int):
        sock.setblocking(False)
        self._sock = sock
        self._poller = poller
        self._switch = switch
        self._config = encode_u64(guest_cid)  # struct virtio_vsock_config
        self._parser = MessageParser()
        self._fds: list[int] = []
        self._memory: GuestMemory | None = None
        self._rings = (_Ring(), _Ring())
        self._protocol = 0
        self._broken = False
        self._requests: dict[int, tuple[range, Callable[[Message, list[int]], bytes | None]]] = {
            Request.GET_FEATURES: (_NONE, self._get_features),
            Request.SET_FEATURES: (_NONE, self._set_features),
            Request.SET_OWNER: (_NONE, self._nothing),
            Request.RESET_OWNER: (_NONE, self._reset_owner),
            Request.SET_MEM_TABLE: (_MANY, self._set_memory),
            Request.SET_VRING_NUM: (_NONE, self._set_size),
            Request.SET_VRING_ADDR: (_NONE, self._set_address),
            Request.SET_VRING_BASE: (_NONE, self._set_base),
            Request.GET_VRING_BASE: (_NONE, self._get_base),
            Request.SET_VRING_KICK: (_ONE_OR_NONE, self._set_kick),
            Request.SET_VRING_CALL: (_ONE_OR_NONE, self._set_call),
            Request.SET_VRING_ERR: (_ONE_OR_NONE, self._set_error),
            Request.GET_PROTOCOL_FEATURES: (_NONE, self._get_protocol),
            Request.SET_PROTOCOL_FEATURES: (_NONE, self._set_protocol),
            Request.GET_QUEUE_NUM: (_NONE, self._get_queues),
            Request.SET_VRING_ENABLE: (_NONE, self._set_enable),
            Request.GET_CONFIG: (_NONE, self._get_config),
        }

    def receive(self) -> bool:
        """Carry out what the front end has sent; return whether it is still there.

        Raises VhostUserError if it broke the protocol.
        """
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    self._parser.wanted, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return True
            except OSError:
                return False
            self._fds += _descriptors(ancillary)
            if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
                raise VhostUserError(f"more than {MAX_FDS} descriptors with one message")
            if not data:
                return False
            message = self._parser.feed(data)
            if message is not None:
                fds, self._fds = self._fds, []
                try:
                    self._carry_out(message, fds)
                finally:
                    # What a request has kept it has taken out of the list.
                    for fd in fds:
                        os.close(fd)

    def interrupt(self, *, receive: bool, transmit: bool) -> None:
        """Tell the guest of what was published in its rings."""
        if receive:
            _signal(self._rings[_RECEIVE].call)
        if transmit:
            _signal(self._rings[_TRANSMIT].call)

    def ring_broke(self) -> None:
        """Stop the rings until the front end stops and starts them itself."""
        self._broken = True
        self._stop()
        self._switch.abandon()
        for ring in self._rings:
            _signal(ring.error)

    def close(self) -> None:
        """End the session and what it holds; the guest's connections end with it."""
        self._stop()
        self._switch.abandon()
        self._memory = None
        for ring in self._rings:
            self._replace_kick(ring, -1)
            for fd in (ring.call, ring.error):
                _close(fd)
            ring.call = ring.error = -1
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self._poller.retire(self._sock)

    def _carry_out(self, message: Message, fds: list[int]) -> None:
        allowed, request = self._requests.get(message.request, (None, None))
        acknowledge = message.needs_reply and bool(self._protocol & _REPLY_ACK)
        if allowed is None or request is None:
            if not acknowledge:
                raise VhostUserError(f"{message.name} is not one that was offered")
            self._reply(message, encode_u64(1))
            return
        if len(fds) not in allowed:
            raise VhostUserError(f"{message.name} with {len(fds)} descriptors")
        reply = request(message, fds)
        if reply is None and acknowledge:
            reply = encode_u64(0)
        if reply is not None:
            self._reply(message, reply)

    def _reply(self, message: Message, payload: bytes) -> None:
        data = encode_reply(message.request, payload)
        try:
            sent = self._sock.send(data, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise VhostUserError(f"the reply to {message.name} cannot be sent") from error
        if sent != len(data):
            raise VhostUserError(f"the front end does not take the reply to {message.name}")

    # The rings as a whole.

    def _update(self) -> None:
        """Start or stop the switch, whichever the rings' states now ask for."""
        complete = self._memory is not None and all(ring.complete for ring in self._rings)
        if complete and not self._switch.running and not self._broken:
            self._switch.start(self._queue(_RECEIVE), self._queue(_TRANSMIT))
        elif not complete:
            self._stop()

    def _stop(self) -> None:
        bases = self._switch.bases
        if bases is not None:
            for ring, base in zip(self._rings, bases, strict=True):
                ring.base = base
            self._switch.stop()

    def _restart(self) -> None:
        """Find running rings anew: memory has moved."""
        self._stop()
        self._update()

    def _queue(self, index: int) -> Virtqueue:
        ring = self._rings[index]
        if self._memory is None or ring.address is None:
            raise VhostUserError(f"ring {index} is started without memory or address")
        return Virtqueue(
            self._memory, ring.size, ring.address, ring.base, writable=index == _RECEIVE
        )

    def _ring(self, index: int) -> _Ring:
        if index >= len(self._rings):
            raise VhostUserError(f"there is no ring {index}")
        return self._rings[index]

    # The requests.

    def _nothing(self, message: Message, fds: list[int]) -> None:
        pass

    def _get_features(self, message: Message, fds: list[int]) -> bytes:
        return encode_u64(_FEATURES)

    def _set_features(self, message: Message, fds: list[int]) -> None:
        features = message.u64()
        if features & ~_FEATURES:
            raise VhostUserError(f"features {features:#x} where {_FEATURES:#x} were offered")
        if not features & _PROTOCOL_FEATURES:
            # Such a front end knows no SET_VRING_ENABLE.
            for ring in self._rings:
                ring.enabled = True
            self._update()

    def _get_protocol(self, message: Message, fds: list[int]) -> bytes:
        return encode_u64(_PROTOCOL)

    def _set_protocol(self, message: Message, fds: list[int]) -> None:
        protocol = message.u64()
        if protocol & ~_PROTOCOL:
            raise VhostUserError(f"protocol features {protocol:#x}, offered were {_PROTOCOL:#x}")
        self._protocol = protocol

    def _get_queues(self, message: Message, fds: list[int]) -> bytes:
        return encode_u64(len(self._rings))

    def _reset_owner(self, message: Message, fds: list[int]) -> None:
        for ring in self._rings:
            self._replace_kick(ring, -1)
        self._update()

    def _set_memory(self, message: Message, fds: list[int]) -> None:
        self._stop()
        self._memory = None
        self._memory = GuestMemory(message.regions(), fds)
        self._update()

    def _set_size(self, message: Message, fds: list[int]) -> None:
        index, size = message.ring_state()
        self._ring(index).size = size
        self._restart()

    def _set_address(self, message: Message, fds: list[int]) -> None:
        address = message.ring_address()
        self._ring(address.ring).address = address
        self._restart()

    def _set_base(self, message: Message, fds: list[int]) -> None:
        index, base = message.ring_state()
        ring = self._ring(index)
        if self._switch.running:
            raise VhostUserError(f"a new base for ring {index}, which is running")
        ring.base = base & 0xFFFF
        self._update()

    def _get_base(self, message: Message, fds: list[int]) -> bytes:
        index, _ = message.ring_state()
        ring = self._ring(index)
        self._replace_kick(ring, -1)
        self._broken = False
        self._update()
        return encode_ring_state(index, ring.base)

    def _set_enable(self, message: Message, fds: list[int]) -> None:
        index, enabled = message.ring_state()
        self._ring(index).enabled = bool(enabled)
        self._update()

    def _set_kick(self, message: Message, fds: list[int]) -> None:
        ring, fd = self._descriptor(message, fds)
        if fd < 0:
            raise VhostUserError("a ring that has to be polled, which is not done here")
        self._replace_kick(ring, fd)
        self._update()

    def _set_call(self, message: Message, fds: list[int]) -> None:
        ring, fd = self._descriptor(message, fds)
        _close(ring.call)
        ring.call = fd
        # An interrupt that went to the old one while it was being replaced may be lost.
        if self._switch.running:
            _signal(fd)

    def _set_error(self, message: Message, fds: list[int]) -> None:
        ring, fd = self._descriptor(message, fds)
        _close(ring.error)
        ring.error = fd

    def _descriptor(self, message: Message, fds: list[int]) -> tuple[_Ring, int]:
        """Take the message's descriptor, -1 if it says that there is none."""
        index, present = message.ring_descriptor()
        ring = self._ring(index)
        if len(fds) != present:
            raise VhostUserError(f"{message.name} with {len(fds)} descriptors")
        if not present:
            return ring, -1
        # It is shared with the front end, whose own are non-blocking too.
        os.set_blocking(fds[0], False)
        return ring, fds.pop()

    def _replace_kick(self, ring: _Ring, fd: int) -> None:
        if ring.kick >= 0:
            self._poller.remove(ring.kick)
            os.close(ring.kick)
            ring.kick = -1
        if fd < 0:
            return
        try:
            # Each write to an eventfd is an edge, so it never has to be read.
            self._poller.add(fd, READABLE | EDGE, _kicked)
        except OSError as error:
            os.close(fd)
            raise VhostUserError("a kick descriptor that cannot be waited for") from error
        ring.kick = fd

    def _get_config(self, message: Message, fds: list[int]) -> bytes:
        part = message.config_range()
        if part.offset + part.size > len(self._config):
            return b""  # which means no
        return encode_config(part, self._config[part.offset : part.offset + part.size])


def _kicked(events: int) -> None:
    """Do nothing: the device looks at its rings after every round of events."""


def _signal(fd: int) -> None:
    if fd >= 0:
        # A full counter is a signal as well.
        with contextlib.suppress(OSError):
            os.eventfd_write(fd, 1)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
