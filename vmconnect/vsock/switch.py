"""The switch: connections by their ports, between the guest's two rings and the host's clients.

Nothing here waits for the guest: bytes from it leave by a client's socket or are held within
that connection's window, and what it is owed is one bit per packet and connection. So its transmit
ring can always be emptied, and no guest, however it behaves, makes the other ring's lack of room
grow into memory or a deadlock.
"""

from __future__ import annotations

import functools
import itertools
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from vmconnect.errors import VsockError
from vmconnect.vsock.client import Client
from vmconnect.vsock.connection import Connection, Key, State
from vmconnect.vsock.packet import (
    HEADER,
    HEADER_BYTES,
    HOST_CID,
    STREAM,
    Header,
    Op,
    Shutdown,
)
from vmconnect.vsock.poller import Poller
from vmconnect.vsock.receive_ring import ReceiveRing, split
from vmconnect.vsock.virtqueue import Virtqueue

__all__ = ["SWEEP_SECONDS", "Switch"]

SWEEP_SECONDS: Final = 0.5
_HANDSHAKE_SECONDS: Final = 10.0  # for a client to say CONNECT
_ANSWER_SECONDS: Final = 10.0  # for the guest to answer a REQUEST
_CLOSE_SECONDS: Final = 8.0  # for the guest to confirm a close; Linux waits as long
_PAUSE_SECONDS: Final = 5.0  # for stopped rings to go on where they were

# "CONNECT 4294967295\n" has 19 bytes.
_LINE_BYTES: Final = 32
_MAX_PORT: Final = 0xFFFF_FFFE  # the last is VMADDR_PORT_ANY
# Where Firecracker begins to number the host's ends; the guest's own begin far below.
_FIRST_HOST_PORT: Final = 1 << 30
_HOST_PORTS: Final = 1 << 30

# Resets owed to packets of no connection; a guest that makes more does not hear of the oldest.
_MAX_RESETS: Final = 1024
# Packets from the guest, then bytes to it of one client, before others have their turn.
_TRANSMIT_BATCH: Final = 64
_CLIENT_BATCH: Final = 64 * 1024
_MAX_BUFFERS: Final = 64
_NEVER: Final = float("inf")

_Reset = tuple[int, int, int, int]  # source CID, host port, guest port, packet type


class _Link:
    """A connection with its client, and where it stands in the switch's queues."""

    __slots__ = ("appetite", "client", "connection", "deadline", "starved")

    def __init__(self, connection: Connection, client: Client, deadline: float = _NEVER):
        self.connection = connection
        self.client = client
        self.deadline = deadline
        self.starved = False  # has bytes, and no credit
        self.appetite = 1  # buffers to offer; grows while the client fills them


class Switch:
    """All connections of one guest.

    ``dial`` connects to what listens on the host for a port, and returns None if nothing does.
    ``limit`` bounds the connections; the guest may make half of them.
    """

    def __init__(
        self,
        guest_cid: int,
        poller: Poller,
        dial: Callable[[int], socket.socket | None],
        limit: int,
    ):
        self._guest_cid = guest_cid
        self._poller = poller
        self._dial = dial
        self._limit = limit
        self._links: dict[tuple[int, int], _Link] = {}
        self._from_guest: set[Client] = set()  # of those that the guest called
        self._greeting: dict[Client, float] = {}  # and until when they may take
        self._draining: set[Client] = set()
        self._host_ports = itertools.cycle(range(_FIRST_HOST_PORT, _FIRST_HOST_PORT + _HOST_PORTS))
        # Those with packets owed, and those with bytes for the guest, in turn. A link leaves them
        # when it ends, not when its turn comes: a guest that gives no room never lets it come.
        self._owing: OrderedDict[_Link, None] = OrderedDict()
        self._ready: OrderedDict[_Link, None] = OrderedDict()
        self._resets: dict[_Reset, None] = {}
        self._receive: ReceiveRing | None = None
        self._transmit: Virtqueue | None = None
        self._paused_at: tuple[int, int] | None = None
        self._paused_until = _NEVER

    # The rings.

    @property
    def running(self) -> bool:
        """Whether the guest's driver is up."""
        return self._transmit is not None

    @property
    def bases(self) -> tuple[int, int] | None:
        """The receive and transmit entries where a later start has to go on, while running."""
        if self._receive is None or self._transmit is None:
            return None
        return self._receive.base, self._transmit.base

    def start(self, receive: Virtqueue, transmit: Virtqueue) -> None:
        """Serve a guest's rings.

        A paused machine goes on where its rings stopped, and so do its connections; a driver that
        starts anew has forgotten them.
        """
        if self._paused_at != (receive.base, transmit.base):
            self.abandon()
        self._paused_at = None
        self._receive = ReceiveRing(receive)
        self._transmit = transmit
        for link in list(self._links.values()):
            self._consider(link)

    def stop(self) -> None:
        """Serve the rings no more, and hold the connections: it may be a pause."""
        if not self.running:
            return
        self._paused_at = self.bases
        self._paused_until = time.monotonic() + _PAUSE_SECONDS
        self._receive = self._transmit = None

    def abandon(self) -> None:
        """End all connections: the guest that had them is no more."""
        for link in list(self._links.values()):
            self._drop(link)
        self._resets.clear()
        self._paused_at = None

    def close(self) -> None:
        """End everything at once."""
        self._receive = self._transmit = None
        self.abandon()
        for client in (*self._greeting, *self._draining):
            client.close()
        self._greeting.clear()
        self._draining.clear()
        self._from_guest.clear()

    # The host's clients.

    @property
    def full(self) -> bool:
        """Whether no more clients can be taken."""
        return len(self._links) + len(self._greeting) + len(self._draining) >= self._limit

    def accept(self, sock: socket.socket) -> None:
        """Take a client that has connected; it has to say what to."""
        if self.full:
            sock.close()
            return
        client = Client(sock, self._poller, lambda: None)
        client.on_event = functools.partial(self._greet, client)
        self._greeting[client] = time.monotonic() + _HANDSHAKE_SECONDS

    def _greet(self, client: Client) -> None:
        try:
            line = client.receive_line(_LINE_BYTES)
        except OSError:
            line = b""
        if line is None:
            return
        del self._greeting[client]
        word, _, number = line.strip().partition(b" ")
        port = int(number) if number.isdigit() else -1
        # A driver that is not up would never answer; one that is paused may.
        up = self.running or self._paused_at is not None
        if word.upper() != b"CONNECT" or not 0 <= port <= _MAX_PORT or not up:
            client.close()
            return
        key = next(key for host in self._host_ports if (key := Key(port, host)) not in self._links)
        self._add(
            _Link(Connection(self._guest_cid, key), client, time.monotonic() + _ANSWER_SECONDS)
        )

    def _add(self, link: _Link) -> None:
        self._links[link.connection.key] = link
        link.client.on_event = functools.partial(self._consider, link)
        self._owe(link)

    def _consider(self, link: _Link) -> None:
        """Do what a link's client and state now allow."""
        connection, client = link.connection, link.client
        if connection.state is State.REQUESTED:
            if client.gone:
                self._reset(link)
            return
        if connection.state is not State.OPEN:
            return
        if not client.drained:
            try:
                connection.delivered(client.flush())
            except BrokenPipeError:
                self._deaf(link)
        if connection.guest_done == Shutdown.BOTH and client.drained:
            # The guest has said all; it waits for this to forget the connection.
            self._reset(link)
            return
        if client.gone and not connection.may_send:
            self._gone(link)
            return
        if client.readable and connection.may_send and link not in self._ready:
            link.starved = not connection.credit
            if not link.starved:
                self._ready[link] = None
        self._owe(link)

    def _deaf(self, link: _Link) -> None:
        link.connection.delivered(link.client.discard())
        link.connection.host_deaf()

    def _gone(self, link: _Link) -> None:
        link.connection.delivered(link.client.discard())
        link.connection.host_gone()
        link.client.close()
        link.deadline = time.monotonic() + _CLOSE_SECONDS
        self._owe(link)

    # Ends.

    def _drop(self, link: _Link) -> None:
        """Forget a link; its client still gets what it has not taken."""
        del self._links[link.connection.key]
        self._owing.pop(link, None)
        self._ready.pop(link, None)
        link.connection.state = State.CLOSED
        client = link.client
        if client.closed or client.drained:
            self._part(client)
            return
        client.end()
        client.on_event = functools.partial(self._drain, client)
        self._draining.add(client)

    def _drain(self, client: Client) -> None:
        try:
            client.flush()
        except BrokenPipeError:
            client.discard()
        if client.drained or client.gone:
            self._draining.discard(client)
            self._part(client)

    def _part(self, client: Client) -> None:
        self._from_guest.discard(client)
        client.close()

    def _reset(self, link: _Link) -> None:
        key = link.connection.key
        self._drop(link)
        self._owe_reset((HOST_CID, key.host_port, key.guest_port, STREAM))

    def _owe_reset(self, reset: _Reset) -> None:
        if len(self._resets) >= _MAX_RESETS:
            del self._resets[next(iter(self._resets))]
        self._resets[reset] = None

    def _owe(self, link: _Link) -> None:
        if link.connection.owed and link not in self._owing:
            self._owing[link] = None

    def sweep(self) -> None:
        """End what has taken too long, and ask for credit where it has been missing for long."""
        now = time.monotonic()
        for client, until in list(self._greeting.items()):
            if until <= now:
                del self._greeting[client]
                client.close()
        if self._paused_at is not None and self._paused_until <= now:
            self.abandon()
        for link in list(self._links.values()):
            if link.deadline <= now:
                self._reset(link)
            elif link.starved:
                link.connection.ask_for_credit()
                self._owe(link)

    @property
    def timed(self) -> bool:
        """Whether `sweep` has anything to watch."""
        return (
            bool(self._greeting)
            or self._paused_at is not None
            or any(link.starved or link.deadline < _NEVER for link in self._links.values())
        )

    # The guest's packets.

    def transmit(self) -> tuple[bool, bool]:
        """Take a batch of packets from the guest.

        Returns whether it wants an interrupt, and whether more packets wait. Raises VsockError if
        the ring is broken.
        """
        ring = self._transmit
        if ring is None:
            return False, False
        taken = 0
        while (chain := ring.pop()) is not None:
            if not taken:
                ring.suppress_kicks()
            head, views = chain
            self._packet(views)
            ring.push(head, 0)
            taken += 1
            if taken == _TRANSMIT_BATCH:
                return ring.publish(), True
        # The last call may have ended with a full batch, and the ring without a word since.
        if not taken and not ring.kicks_suppressed:
            return False, False
        interrupt = ring.publish()
        return interrupt, ring.want_kicks()

    def _packet(self, views: list[memoryview]) -> None:
        first = views[0]
        if len(first) == HEADER_BYTES:  # as Linux does it
            payload = views[1:]
        else:
            parts, payload = split(views, HEADER_BYTES)
            first = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
            if len(first) < HEADER_BYTES:
                return  # Nobody can say whose it was.
        header = Header._make(HEADER.unpack_from(first))
        if header.src_cid != self._guest_cid:
            return
        key = Key(header.src_port, header.dst_port)
        link = self._links.get(key)
        if header.dst_cid != HOST_CID or header.type != STREAM:
            self._stray(header)
        elif link is None:
            if header.op == Op.REQUEST and not header.length:
                self._guest_connects(key, header)
            else:
                self._stray(header)
        else:
            size = sum(map(len, payload))
            if size > header.length:
                payload = split(payload, header.length)[0]
            try:
                if size < header.length:
                    raise VsockError(f"{header.length} bytes announced, {size} there")
                self._receive_packet(link, header, payload)
            except VsockError:
                self._reset(link)

    def _stray(self, header: Header) -> None:
        if header.op != Op.RST:
            self._owe_reset((header.dst_cid, header.dst_port, header.src_port, header.type))

    def _guest_connects(self, key: Key, header: Header) -> None:
        sock = None
        if not self.full and len(self._from_guest) < self._limit // 2:
            sock = self._dial(key.host_port)
        if sock is None:
            self._stray(header)
            return
        client = Client(sock, self._poller, lambda: None)
        self._from_guest.add(client)
        # A reset owed to the last that had these ports would end this one.
        self._resets.pop((HOST_CID, key.host_port, key.guest_port, STREAM), None)
        self._add(_Link(Connection(self._guest_cid, key, header), client))

    def _receive_packet(self, link: _Link, header: Header, payload: list[memoryview]) -> None:
        connection, client = link.connection, link.client
        connection.receive(header)
        op = header.op
        if op == Op.RW:
            if connection.host_done & Shutdown.RECEIVE:
                connection.delivered(header.length)
            else:
                try:
                    connection.delivered(client.send(payload))
                except BrokenPipeError:
                    connection.delivered(header.length)
                    self._deaf(link)
        elif op == Op.RST:
            self._drop(link)
            return
        elif op == Op.RESPONSE:
            link.deadline = _NEVER
            if not client.send_line(b"OK %d\n" % connection.key.host_port):
                self._reset(link)
                return
        elif op == Op.SHUTDOWN:
            self._shutdown(link)
            return
        if link.starved or op == Op.RESPONSE:
            self._consider(link)
        elif connection.owed:
            self._owe(link)

    def _shutdown(self, link: _Link) -> None:
        connection, client = link.connection, link.client
        if connection.state is State.CLOSING:
            if connection.guest_done == Shutdown.BOTH:
                self._reset(link)
            return
        if connection.guest_done & Shutdown.SEND:
            client.end()
        if connection.guest_done & Shutdown.RECEIVE:
            client.stop_reading()
        self._consider(link)

    # The guest's receive ring.

    def receive(self) -> tuple[bool, bool]:
        """Put what is owed, then one turn of the clients' bytes, into the guest's buffers.

        Returns whether the guest wants an interrupt, and whether more can be put. Raises
        VsockError if the ring is broken.
        """
        ring = self._receive
        if ring is None or not (self._resets or self._owing or self._ready):
            return False, False
        # Owed packets first, all of them: data must not overtake the answer to a request when the
        # guest makes room between one look and the next.
        if self._send_owed(ring) and self._ready and ring.has_room():
            self._send_data(ring, self._ready.popitem(last=False)[0])
        interrupt = ring.publish()
        more = bool(self._resets or self._owing or self._ready) and ring.has_room()
        return interrupt, more

    def _send_owed(self, ring: ReceiveRing) -> bool:
        """Send what is owed while there is room; return whether that was all."""
        while self._resets:
            if not ring.has_room():
                return False
            reset = next(iter(self._resets))
            del self._resets[reset]
            cid, host_port, guest_port, kind = reset
            ring.put(Header(cid, self._guest_cid, host_port, guest_port, 0, kind, Op.RST, 0, 0, 0))
        while self._owing:
            link = next(iter(self._owing))
            while link.connection.owed:
                if not ring.has_room():
                    return False
                packet = link.connection.next_packet()
                if packet is not None:
                    ring.put(packet)
            del self._owing[link]
        return True

    def _send_data(self, ring: ReceiveRing, link: _Link) -> None:
        connection, client = link.connection, link.client
        if not connection.may_send:
            return
        limit = min(connection.credit, _CLIENT_BATCH)
        if not limit:
            link.starved = client.readable
            return
        views = ring.room(limit, link.appetite)
        count = client.receive_into(views)
        if count:
            packets = ring.commit(connection.header(Op.RW), count)
            connection.sent(count)
            filled = packets >= link.appetite or count >= limit
            link.appetite = min(link.appetite * 4, _MAX_BUFFERS) if filled else 1
        elif count == 0:
            client.readable = False
            if client.gone:
                self._gone(link)
            else:
                connection.host_end()
        self._consider(link)
