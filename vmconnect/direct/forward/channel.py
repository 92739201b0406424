"""One forwarded connection's channel in SSH: windows, ends, and what goes over it."""

from __future__ import annotations

import struct
import threading
from typing import Protocol

from vmconnect.direct.library import paramiko
from vmconnect.direct.transport import PACKET_BYTES, WINDOW_BYTES, ForwardingTransport, Packet

__all__ = ["ChannelOwner", "ForwardChannel"]

_WINDOW_ADJUST, _DATA, _EOF, _CLOSE = 93, 94, 96, 97  # RFC 4254, section 9
# Leave to send more is given once this much was passed on.
_LEAVE_BYTES = WINDOW_BYTES // 4


class ChannelOwner(Protocol):
    """Who takes what comes; called in the transport's thread, and must not send there."""

    def opened(self) -> None:
        """Take it that the guest has connected."""

    def refused(self, reason: int, text: str) -> None:
        """Take it that the guest has not, and why."""

    def arrived(self, data: bytes) -> None:
        """Take what the guest sends."""

    def room_made(self) -> None:
        """Take it that there is room to send again."""

    def leave_due(self) -> None:
        """Call `ForwardChannel.give_leave`, in another thread."""

    def guest_ended(self) -> None:
        """Take it that the guest sends nothing more."""

    def guest_closed(self, *, lost: bool) -> None:
        """Take it that the guest is gone; with ``lost``, with the whole connection."""

    def broken(self) -> None:
        """Take it that the guest has broken the rules: nothing more comes."""


class ForwardChannel:
    """A channel of ``transport`` (a `vmconnect.direct.transport.Peer`).

    What is called ``send`` or ``close`` waits until the connection takes it.
    """

    number = -1

    def __init__(self, transport: ForwardingTransport, owner: ChannelOwner):
        self._transport = transport
        self._owner = owner
        self._lock = threading.Lock()
        self._theirs = -1
        self._packet = 0
        self._may_send = 0
        self._may_arrive = WINDOW_BYTES
        self._passed = 0
        self._ended = self._closed = self._broken = False
        self._guest_ended = self._guest_closed = False

    @property
    def room(self) -> int:
        """How many bytes the guest takes at the moment."""
        return self._may_send

    def send(self, data: memoryview) -> None:
        """Send bytes, no more than there is room for."""
        with self._lock:
            self._may_send -= len(data)
        for start in range(0, len(data), self._packet):
            part = data[start : start + self._packet]
            self._put(b"".join((struct.pack(">BII", _DATA, self._theirs, len(part)), part)))

    def passed(self, count: int) -> bool:
        """Count bytes that were passed on; return whether they make it time to give leave."""
        with self._lock:
            before = self._passed
            self._passed += count
            return before < _LEAVE_BYTES <= self._passed

    def give_leave(self) -> None:
        """Let the guest send as much again as was passed on."""
        with self._lock:
            count, self._passed = self._passed, 0
            self._may_arrive += count
            if not count or self._closed or self._guest_closed:
                return
        self._put(struct.pack(">BII", _WINDOW_ADJUST, self._theirs, count))

    def send_end(self) -> None:
        """Say that nothing more is sent; once is enough."""
        if not self._ended and not self._closed:
            self._ended = True
            self._put(struct.pack(">BI", _EOF, self._theirs))

    def close(self) -> None:
        """End it both ways."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._theirs < 0:
                return  # The guest has not answered yet.
            forget = self._guest_closed
        self._put(struct.pack(">BI", _CLOSE, self._theirs))
        if forget:
            self._transport.leave(self.number)

    def _put(self, packet: bytes) -> None:
        self._transport.send(Packet(packet))

    # What the transport calls, in its thread.

    def refused(self, reason: int, text: str) -> None:
        """Take the guest's refusal."""
        self._owner.refused(reason, text)

    def _set_remote_channel(self, number: int, window: int, packet: int) -> None:
        if self._theirs >= 0:
            return
        self._theirs = number
        self._packet = min(max(packet, 1), PACKET_BYTES)
        with self._lock:
            self._may_send = window
            unwanted = self._closed
        if unwanted:
            self._transport.send_now(Packet(struct.pack(">BI", _CLOSE, number)))
        else:
            self._owner.opened()

    def _feed(self, message: paramiko.Message) -> None:
        data = message.get_binary()
        with self._lock:
            self._may_arrive -= len(data)
            ignored = self._closed or self._guest_closed or self._broken
            self._broken |= self._may_arrive < 0
        if ignored:
            return
        if self._broken:
            self._owner.broken()
        else:
            self._owner.arrived(data)

    def _feed_extended(self, message: paramiko.Message) -> None:
        """Ignore it: no such stream is defined for these channels."""

    def _window_adjust(self, message: paramiko.Message) -> None:
        with self._lock:
            self._may_send += message.get_int()
        self._owner.room_made()

    def _handle_eof(self, _message: paramiko.Message) -> None:
        again, self._guest_ended = self._guest_ended, True
        if not again:
            self._owner.guest_ended()

    def _handle_request(self, _message: paramiko.Message) -> None:
        """Ignore it: there are no requests on these channels that want an answer."""

    def _request_success(self, _message: paramiko.Message) -> None:
        """Ignore it: nothing was asked for."""

    def _request_failed(self, _message: paramiko.Message) -> None:
        """Ignore it: nothing was asked for."""

    def _handle_close(self, _message: paramiko.Message) -> None:
        with self._lock:
            again, self._guest_closed = self._guest_closed, True
            forget = self._closed
        if again:
            return
        if forget:
            self._transport.leave(self.number)
        self._owner.guest_closed(lost=False)

    def _unlink(self) -> None:
        self._owner.guest_closed(lost=True)
