"""The broker's loop: it hears clients, starts their commands, and ends when it is idle."""

from __future__ import annotations

import array
import contextlib
import json
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

from vmconnect.broker import wire
from vmconnect.broker.claim import Claim
from vmconnect.broker.code import LoadedCode
from vmconnect.broker.order import BadOrderError, ForeignOrderError, Order
from vmconnect.broker.request import DeclinedError, Request
from vmconnect.broker.surroundings import Surroundings
from vmconnect.broker.warm import WarmSessions

__all__ = ["Broker", "Handler"]

Handler = Callable[[Request, WarmSessions], int]
"""Runs a client's command and returns its exit code; raises DeclinedError before it does."""

_log = logging.getLogger(__name__)

# How long a client may take to say what it wants.
_ORDER_SECONDS = 10.0
# How long a command that is hung up on may take to end before its client is let go.
_HANG_UP_SECONDS = 1.0
# What runs when the broker is told to end has this long to notice.
_END_SECONDS = 2.0
_MOST_CLIENTS = 1024
_SHORTAGE_SECONDS = 0.05
# How long a client may take to read a long answer.
_ANSWER_SECONDS = 5.0
_INTERRUPTED = 130


class _Client:
    """A connection, what it has asked for, and until when something has to happen."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.request: Request | None = None
        self.until: float | None = time.monotonic() + _ORDER_SECONDS


class Broker:
    """Serves the user's clients until there has been nothing to do for a while."""

    def __init__(self, claim: Claim, handler: Handler, idle_s: float):
        """Take over a claim. ``idle_s`` is how long a session, and then the broker, may be idle."""
        self._claim: Claim | None = claim
        self._handler = handler
        self._idle_s = idle_s
        self._code = LoadedCode()
        self._surroundings = Surroundings()
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._posted: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sessions = WarmSessions(idle_s, self._wake)
        self._busy_at = time.monotonic()
        self._ending = False
        self._selector.register(self._event, selectors.EVENT_READ, self._on_wake)
        self._selector.register(claim.listener, selectors.EVENT_READ, self._on_client)

    def run(self) -> None:
        """Serve; return when idle, retired or told to by SIGTERM. For the main thread."""
        signal.signal(signal.SIGTERM, self._on_term)
        _log.info("ready")
        try:
            while not self._ending:
                timeout = self._tidy()
                if self._done():
                    break
                for key, _ in self._selector.select(timeout):
                    key.data()
        except BaseException:
            _log.exception("it has failed")
            raise
        finally:
            self._retire("ended")
            self._sessions.close_all()
            self._see_off()

    def _tidy(self) -> float | None:
        """Do what is due; return how long nothing else will be."""
        if self._claim is not None and not self._claim.holds:
            self._retire("its socket has gone")
        now = time.monotonic()
        due = [self._sessions.tidy()]
        for client in [each for each in self._clients if each.until is not None]:
            assert client.until is not None  # noqa: S101 (as just asked)
            if client.until > now:
                due.append(client.until - now)
            elif client.request is None:
                self._drop(client)
            else:
                client.until = None
                self._let_go(client.request)
        if self._clients or self._sessions:
            self._busy_at = now
        elif self._claim is not None:
            due.append(max(0.0, self._busy_at + self._idle_s - now))
        return min((each for each in due if each is not None), default=None)

    def _done(self) -> bool:
        if self._clients:
            return False
        if self._claim is None:
            return True
        return not self._sessions and time.monotonic() >= self._busy_at + self._idle_s

    def _retire(self, why: str) -> None:
        """Take no more orders: whoever comes next finds no broker, or another."""
        if self._claim is not None:
            _log.info("takes no more: %s", why)
            self._selector.unregister(self._claim.listener)
            self._claim.release()
            self._claim = None
            self._sessions.close([])

    def _see_off(self) -> None:
        """Let what runs still notice that it is over, and tell its client."""
        until = time.monotonic() + _END_SECONDS
        while self._clients and time.monotonic() < until:
            for key, _ in self._selector.select(until - time.monotonic()):
                key.data()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.eventfd_write(self._event, 1)

    def _post(self, action: Callable[[], object]) -> None:
        """Have the loop do something; from any thread."""
        self._posted.put(action)
        self._wake()

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        with contextlib.suppress(queue.Empty):
            while True:
                self._posted.get_nowait()()

    def _on_term(self, *_: object) -> None:
        self._ending = True
        self._wake()

    def _on_client(self) -> None:
        assert self._claim is not None  # noqa: S101 (else nobody listens)
        try:
            connection, _ = self._claim.listener.accept()
        except BlockingIOError:
            return  # It has gone again.
        except OSError:
            time.sleep(_SHORTAGE_SECONDS)  # No descriptor is left; it is heard when one is.
            return
        if len(self._clients) >= _MOST_CLIENTS or wire.peer(connection)[1] != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(client))

    def _hear(self, client: _Client) -> None:
        if client not in self._clients:
            return  # It was dropped in the same turn of the loop.
        try:
            self._on_packet(client)
        except Exception:  # noqa: BLE001 (a fault of ours costs this client, and no other)
            _log.exception("a client was dropped")
            if client.request is not None:
                client.request.interrupt(gone=True)
            self._drop(client)

    def _on_packet(self, client: _Client) -> None:
        try:
            packet, descriptors = _received(client.connection)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if client.request is not None:
            _close(descriptors)
            if packet:
                client.request.hear(packet)
            else:
                client.request.interrupt(gone=True)
                self._selector.unregister(client.connection)
            if client.request.interrupted and client.until is None:
                client.until = time.monotonic() + _HANG_UP_SECONDS
        elif packet[:1] == wire.RUN:
            self._start(client, packet, descriptors)
        else:
            _close(descriptors)
            self._answer(client, packet)

    def _start(self, client: _Client, packet: bytes, descriptors: list[int]) -> None:
        """Start what a client orders; say that it is to do it alone if we cannot do it right."""
        refusal = wire.ALONE
        try:
            if len(descriptors) != wire.DESCRIPTORS:
                raise BadOrderError
            order = Order.from_bytes(packet)
            if not self._code.is_current():
                raise ForeignOrderError
            if not self._surroundings.are_of(order, wire.peer(client.connection)[0]):
                raise DeclinedError("other surroundings")
            theirs, descriptors = descriptors, []
            request = Request(
                order, client.connection, theirs, lambda: self._post(lambda: self._drop(client))
            )
        except ForeignOrderError:
            refusal = wire.RETIRED
            self._retire("another version came")
        except (BadOrderError, DeclinedError, OSError) as error:
            _log.info("declined: %r", error)
        else:
            client.request, client.until = request, None
            _tell(client.connection, wire.TAKEN)
            thread = threading.Thread(
                target=self._run, args=(request,), name="vmconnect-command", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # there are too many
                request.conclude(wire.ALONE)
            return
        _close(descriptors)
        _tell(client.connection, refusal)
        self._drop(client)

    def _run(self, request: Request) -> None:
        """Run a command, in a thread of its own."""
        message = wire.ALONE
        try:
            message = wire.EXIT + bytes([self._handler(request, self._sessions) & 0xFF])
        except DeclinedError as error:
            _log.info("declined: %s", error)
        except BaseException:
            _log.exception("a command failed")
            raise
        finally:
            request.conclude(message)
        request.finish()

    def _let_go(self, request: Request) -> None:
        """Conclude a command that was hung up on and does not end."""
        if not request.over:
            request.say("vmconnect: interrupted\n")
            request.conclude(wire.EXIT + bytes([_INTERRUPTED]))

    def _answer(self, client: _Client, packet: bytes) -> None:
        """Answer a question of ``vmconnect sessions``."""
        connection = client.connection
        kind, (protocol, *names) = packet[:1], packet[1:].decode(errors="replace").split("\0")
        if packet and protocol != wire.PROTOCOL:
            _tell(connection, wire.RETIRED)
        elif kind == wire.SESSIONS:
            client.until = None
            self._selector.unregister(connection)
            threading.Thread(
                target=self._list, args=(client,), name="vmconnect-list", daemon=True
            ).start()
            return
        elif kind == wire.CLOSE:
            _tell(connection, wire.DONE + str(self._sessions.close(names)).encode())
        elif kind == wire.STOP:
            self._retire("it was told to")
            _tell(connection, wire.DONE)
        self._drop(client)

    def _list(self, client: _Client) -> None:
        """Tell a client of every session, in a thread of its own: it may read slowly."""
        try:
            client.connection.settimeout(_ANSWER_SECONDS)
            for each in self._sessions.described():
                client.connection.send(wire.SESSION + json.dumps(each).encode())
            client.connection.send(wire.DONE)
        except OSError:
            pass  # It has gone.
        finally:
            self._post(lambda: self._drop(client))

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            with contextlib.suppress(KeyError):  # its end has been heard
                self._selector.unregister(client.connection)
            client.connection.close()
            # It knows of the client in its turn, and would keep its descriptors for a while.
            client.request = None


def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return a packet and the descriptors beside it; an empty one if it is longer than allowed."""
    numbers = array.array("i")
    packet, ancillary, flags, _ = connection.recvmsg(
        wire.LIMIT_BYTES,
        socket.CMSG_SPACE(wire.DESCRIPTORS * numbers.itemsize),
        socket.MSG_CMSG_CLOEXEC,
    )
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    descriptors = list(numbers)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close(descriptors)
        return b"", []
    return packet, descriptors


def _tell(connection: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):  # it has gone
        connection.send(message)


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        with contextlib.suppress(OSError):
            os.close(each)
