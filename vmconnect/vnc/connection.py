"""One RFB connection: a stream, the engine that reads it, and the thread that writes to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, ConnectionLostError, VmconnectError
from vmconnect.retry import Heartbeat
from vmconnect.secret import forget_frames
from vmconnect.streams import Stream
from vmconnect.vnc.clock import Clock
from vmconnect.vnc.engine import Engine
from vmconnect.vnc.events import Event, UpdateDone
from vmconnect.vnc.link import Link
from vmconnect.vnc.messages import framebuffer_update_request
from vmconnect.vnc.outbox import Outbox
from vmconnect.vnc.receipts import QUESTION, Receipts
from vmconnect.vnc.states import State

__all__ = ["Connection"]

# What takes longer than to copy what is there already has been waited for (seconds, and for each
# megabyte once more).
_COPYING = 2e-4

# How often what was typed is asked after, and whether the server is there (seconds); less often
# where the heartbeat is slower.
_PERIOD = 1.0


class Connection:
    """A live connection; whoever calls `serve` reads, any thread may `send`.

    With a ``heartbeat`` a server that is silent is asked whether it is there, and which input it
    has read, as far as it can be asked (see `vmconnect.vnc.receipts`).
    """

    def __init__(
        self,
        stream: Stream,
        engine: Engine,
        link: Link,
        name: str,
        heartbeat: Heartbeat | None = None,
    ):
        self.engine = engine
        self.link = link
        self.ended: VmconnectError | None = None
        """What has ended it; None while it lives."""
        self._stream = stream
        self._heartbeat = heartbeat
        # Encrypted bytes have to go in the order in which they were encrypted.
        self._sealing = threading.Lock()
        self._answered = threading.Condition(self._sealing)
        now = time.monotonic()
        self._heard_at = self._ticked_at = now
        self._receipts = Receipts(now)
        period = min(_PERIOD, heartbeat.interval_s / 2) if heartbeat else None
        self._period = period or 0.0
        self._outbox = Outbox(stream, f"{name}: send", self._fail, self._tick, period)

    def shake_hands(self, clock: Clock) -> list[Event]:
        """Drive the engine until it is in NORMAL, within the deadline; return what it told.

        Raises what the engine does, DeadlineError, ConnectionLostError, and ClosedError if the
        deadline's scope is cancelled; the stream is closed then.
        """
        engine, stream = self.engine, self._stream
        events: list[Event] = []
        try:
            with clock.deadline.waking(stream.close):
                while engine.state is not State.NORMAL:
                    doing = f"waiting for the VNC server's {engine.message}"
                    clock.deadline.check(doing)
                    stream.settimeout(clock.deadline.remaining())
                    count = stream.recv_into(engine.next_buffer())
                    if not count:
                        raise engine.receive_end()
                    events += engine.received(count)
                    clock.deadline.check(doing)
                    stream.settimeout(clock.deadline.remaining())
                    self._answer()
                stream.settimeout(None)
                clock.deadline.check("greeting the VNC server")
        except BaseException:
            engine.close()
            stream.close()
            raise
        self._outbox.start()
        return events

    def _answer(self) -> None:
        """Send what the handshake has to say; no variable keeps it: it may be a password."""
        out = self.engine.data_to_send()
        try:
            if out:
                self._stream.sendall(out)
        except VmconnectError as error:
            del out
            forget_frames(error)
            raise

    def serve(self, tell: Callable[[list[Event]], None]) -> VmconnectError:
        """Read until the end, tell what happens, and return what the end was."""
        engine, stream, link = self.engine, self._stream, self.link
        answers = disturbances = 0
        try:
            while True:
                buffer = engine.next_buffer()
                asked = time.monotonic()
                count = stream.fill(buffer) if engine.patient else stream.recv_into(buffer)
                if not count:
                    raise engine.receive_end()
                came = self._heard_at = time.monotonic()
                link.received(count, came, waited=came - asked > _COPYING * (1 + count / 2**20))
                try:
                    events = engine.received(count)
                except VmconnectError:
                    tell(engine.events())
                    raise
                if any(isinstance(event, UpdateDone) for event in events) and link.update_ended():
                    engine.offer(link.choice.numbers)
                with self._sealing:
                    if out := engine.data_to_send():
                        self._outbox.put(out)
                    if engine.disturbances != disturbances:
                        disturbances = engine.disturbances
                        self._receipts.disturb(came)
                    if engine.answers != answers:
                        answers = engine.answers
                        self._receipts.answer()
                        self._answered.notify_all()
                tell(events)
        except VmconnectError as error:
            return self.fail(error)
        finally:
            engine.close()

    def send(self, data: bytes, what: str = "") -> None:
        """Send a message; ``what`` names input that is to be accounted for.

        Raises ConnectionLostError, and what the stream does; then it is not sent.
        """
        try:
            with self._sealing:
                if self.ended is not None:
                    raise self.ended
                start = self._outbox.taken
                self._outbox.put(self.engine.seal(data))
                if what:
                    self._receipts.note(what, start)
        except VmconnectError as error:
            self.fail(error)
            raise

    def request_whole(self) -> None:
        """Ask for the whole screen."""
        with self._sealing:
            self._receipts.disturb(time.monotonic())
        size = self.engine.framebuffer.width, self.engine.framebuffer.height
        self.send(framebuffer_update_request(False, 0, 0, *size))

    @property
    def sent(self) -> int:
        """How many inputs were sent."""
        return self._receipts.sent

    def wait_confirmed(self, wanted: int, deadline: Deadline) -> bool:
        """Wait until the server has read so many of them for certain; return whether it has.

        It is asked at once, if it has not, and that was not asked already.
        """
        if self._receipts.confirmed < wanted:
            self.ask()
        with self._answered:
            self._answered.wait_for(
                lambda: self._receipts.confirmed >= wanted or self.ended is not None,
                deadline.remaining(),
            )
            return self._receipts.confirmed >= wanted

    def ask(self, *, anyway: bool = False) -> bool:
        """Ask which input was read, unless that is being asked; return whether that can be.

        While the answer would not count it is not asked, if not ``anyway``: a server that says
        anything after it is there.
        """
        with self._sealing:
            if self.ended is not None or not (self.engine.resizable or anyway):
                return False
            now = time.monotonic()
            if (anyway or self._receipts.settled(now)) and self._receipts.ask(now):
                self.engine.asked += 1
                self._outbox.put(self.engine.seal(QUESTION))
        return True

    def fail(self, error: VmconnectError) -> VmconnectError:
        """End the connection because of ``error``, and return what has ended it first."""
        with self._sealing:
            self.ended = ended = self.ended or error
            self._answered.notify_all()
        self._outbox.finish(0)
        self._stream.close()
        return ended

    def close(self, farewell: float = 0.0) -> None:
        """End the connection; what is to be sent may take ``farewell`` seconds.

        Returns when the sending thread is over; whoever serves leaves by himself.
        """
        self.engine.cancel()
        self._outbox.finish(farewell)
        self.fail(ClosedError("the console was closed"))
        self.engine.framebuffer.abandon()
        self._outbox.join()

    def lost(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return, once it has ended, the input that did not leave, and that of which none knows."""
        with self._sealing:
            return self._receipts.lost(self._outbox.handed)

    def _fail(self, error: VmconnectError) -> None:
        self.fail(error)

    def _tick(self) -> None:
        """Ask after what was typed, or whether the server is there, or find that it is not."""
        heartbeat = self._heartbeat
        if heartbeat is None or self.engine.state is not State.NORMAL:
            return
        now, patience = time.monotonic(), heartbeat.patience_s
        if not self.engine.resizable:
            with self._sealing:
                if (asked_at := self._receipts.asked_at) is not None and self._heard_at > asked_at:
                    self._receipts.withdraw()
        late, self._ticked_at = now - self._ticked_at > 3 * self._period, now
        asked_at, silent = self._receipts.asked_at, now - self._heard_at
        try:
            if asked_at is None:
                wondering = patience is not None and silent >= heartbeat.interval_s
                if wondering or self._receipts.pending:
                    self.ask(anyway=wondering)
            # We may have been stopped ourselves, with the answer waiting to be read.
            elif patience is not None and min(silent, now - asked_at) >= patience and not late:
                raise ConnectionLostError(
                    f"the VNC server has not answered for {silent:.0f} seconds"
                )
        except VmconnectError as error:
            self.fail(error)
