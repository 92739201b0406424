"""One connection that is forwarded: a stream on this side, a channel on the guest's."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable

from vmconnect.direct.forward.channel import ForwardChannel
from vmconnect.direct.forward.loop import Loop
from vmconnect.direct.forward.tally import Tally
from vmconnect.direct.transport import SENDING_FAILED
from vmconnect.errors import VmconnectError
from vmconnect.streams import SocketStream

__all__ = ["Connection"]

_READS_AT_ONCE = 4
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_OVER = select.EPOLLHUP | select.EPOLLERR
_AT_ONCE = struct.pack("ii", 1, 0)


class Connection:
    """Carries bytes both ways, and each end of them alone; keeps no more than a channel's window.

    It is served by ``loop``. What comes out of the guest is written where it arrives, in SSH's
    thread; only what the stream does not take at once is kept, and nothing is read that the
    guest does not take. ``accepted`` is the stream's socket if it is one that we took a call on.
    ``over`` is called in the loop's thread once it is over.
    """

    def __init__(
        self,
        stream: SocketStream,
        loop: Loop,
        tally: Tally,
        over: Callable[[Connection], object],
        accepted: socket.socket | None = None,
    ):
        self.stream = stream
        self._accepted = accepted
        self.descriptor = stream.fileno()
        self._loop = loop
        self._tally = tally
        self._over = over
        self._channel: ForwardChannel | None = None
        self._joined = self._counted = False
        # In one piece: the guest says how small those are that it comes in.
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._local_ended = self._guest_ended = self._guest_closed = self._lost = False
        self._shut = self._done = False
        self.on_refused: Callable[[int, str], object] = lambda _reason, _text: None
        """Called in the loop's thread when the guest does not connect; then it is to be broken."""
        self.greeting = b""
        """What the stream gets first, once the guest has connected."""
        self.early = b""
        """What the guest gets first."""

    # In the loop's thread.

    def watch(self) -> None:
        """Have the loop serve the stream, once it is joined to a channel."""
        self._loop.add(self.descriptor, self.ready)

    def attach(self, channel: ForwardChannel) -> None:
        """Take the channel that the guest was asked for, or has asked for."""
        self._channel = channel

    def ready(self, events: int) -> None:
        """Do what can be done."""
        try:
            if events & (_OUT | _OVER):
                self._flush()
            if events & (_IN | _OVER) and self._may_read:
                self._read()
        except SENDING_FAILED:
            self.break_off()
            return
        self._settle()

    def break_off(self) -> None:
        """End it both ways at once; who is connected here is told that it is no proper end."""
        if self._done:
            return
        with self._lock:
            self._waiting.clear()
            self._joined = False
        self._loop.remove(self.descriptor)
        if self._accepted is not None and self._accepted.family != socket.AF_UNIX:
            # A reset, and not an end (socket(7), SO_LINGER): shutting it down would say the end.
            with contextlib.suppress(OSError):
                self._accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._accepted.close()
        self.finish()

    def finish(self) -> None:
        """End it both ways."""
        if self._done:
            return
        with self._lock:
            self._done = True
            self._waiting.clear()
        self._loop.remove(self.descriptor)
        self.stream.close()
        if self._channel is not None:
            with contextlib.suppress(*SENDING_FAILED):
                self._channel.close()
        if self._counted:
            self._tally.open -= 1
        self._over(self)

    @property
    def _may_read(self) -> bool:
        channel = self._channel
        return (
            self._joined
            and not (self._local_ended or self._guest_closed)
            and channel is not None
            and channel.room > 0
        )

    def _read(self) -> None:
        channel, scratch = self._channel, self._loop.scratch
        assert channel is not None  # noqa: S101 (it may read)
        for _ in range(_READS_AT_ONCE):
            room = channel.room
            if not room:
                return
            count = self.stream.receive_at_once(scratch[:room])
            if count is None:
                return
            if not count:
                self._local_ended = True
                channel.send_end()
                return
            channel.send(scratch[:count])
            self._tally.count(sent=count)

    def _flush(self) -> None:
        with self._lock:
            passed = 0
            if self._waiting:
                with memoryview(self._waiting) as data:
                    passed = self.stream.send_at_once(data)
                del self._waiting[:passed]
        self._count(passed)

    def _count(self, passed: int) -> None:
        channel = self._channel
        self._tally.count(received=passed)
        if passed and channel is not None and channel.passed(passed):
            channel.give_leave()

    def _settle(self) -> None:
        """See whether an end is to be passed on, and what is waited for next."""
        if self._done or not self._joined:
            return
        if not self._waiting:
            if self._lost:
                self.break_off()
                return
            if self._guest_closed or (self._guest_ended and self._local_ended):
                self.finish()
                return
            if self._guest_ended and not self._shut:
                self._shut = True
                try:
                    self.stream.shutdown_write()
                except VmconnectError:
                    self.break_off()
                    return
        with self._lock:
            self._arm()

    def _arm(self) -> None:
        """Have the loop wait for what there is to do; with the lock held."""
        if not self._done and self._joined:
            events = (_OUT if self._waiting else 0) | (_IN if self._may_read else 0)
            self._loop.arm(self.descriptor, events)

    def _begin(self) -> None:
        """Start, now that both ends are there."""
        if self._done:
            return
        self._tally.opened += 1
        self._tally.open += 1
        self._counted = True
        try:
            if self.greeting:
                self.stream.sendall(self.greeting)
            if self.early and self._channel is not None:
                if len(self.early) > self._channel.room:
                    self.break_off()
                    return
                self._channel.send(memoryview(self.early))
                self._tally.count(sent=len(self.early))
        except SENDING_FAILED:
            self.break_off()
            return
        with self._lock:
            self._joined = True
        self.ready(_OUT)

    # In the transport's thread.

    def opened(self) -> None:
        """Start, soon."""
        self._loop.call(self._begin)

    def refused(self, reason: int, text: str) -> None:
        """Say that the guest has not connected."""
        self._channel = None
        self._loop.call(lambda: self._done or self.on_refused(reason, text))

    def arrived(self, data: bytes) -> None:
        """Pass it on now, if that can be, else later."""
        passed = 0
        with self._lock:
            if self._done:
                return
            if self._joined and not self._waiting:
                try:
                    passed = self.stream.send_at_once(data)
                except VmconnectError:
                    self._lost = True
                    self._loop.call(self.break_off)
                    return
            if passed < len(data):
                self._waiting += memoryview(data)[passed:]
                self._arm()
        self._tally.count(received=passed)
        channel = self._channel
        if passed and channel is not None and channel.passed(passed):
            self.leave_due()

    def room_made(self) -> None:
        """Read again."""
        with self._lock:
            self._arm()

    def leave_due(self) -> None:
        """Give leave to send more, in a thread that may send."""
        self._loop.call(self._give_leave)

    def guest_ended(self) -> None:
        """Pass the guest's end on."""
        self._guest_ended = True
        self._loop.call(self._settle)

    def guest_closed(self, *, lost: bool) -> None:
        """End it, once what came before is passed on."""
        self._guest_closed = True
        self._lost |= lost
        self._loop.call(self._give_up if lost else self._settle)

    def broken(self) -> None:
        """End it at once."""
        self._loop.call(self.break_off)

    def _give_leave(self) -> None:
        if self._channel is not None and not self._done:
            with contextlib.suppress(*SENDING_FAILED):
                self._channel.give_leave()

    def _give_up(self) -> None:
        if self._joined:
            self._settle()
        else:
            self.break_off()
