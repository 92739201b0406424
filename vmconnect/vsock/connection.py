"""One vsock connection: its state, its credit, what it owes the guest. No I/O.

::

    host asks:   REQUESTED --RESPONSE--> OPEN --HOST_GONE--> CLOSING --RST--> CLOSED
    guest asks:                          OPEN       "           "

The table below says which packet may come in which state, and what the host's client may do;
anything else is a VsockError, changes nothing, and costs the guest that connection. A half-closed
connection is still open: `guest_done` and `host_done` say what each end will do no more.

Credit (virtio 1.2, section 5.10.6.3): either end says how large its receive window is
(``buf_alloc``) and how many bytes it has taken out of it in all (``fwd_cnt``); the other never
has more than a window of bytes under way. All counters are modulo 2**32.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from vmconnect.errors import VsockError
from vmconnect.vsock.packet import HOST_CID, STREAM, Header, Op, Shutdown

__all__ = ["TRANSITIONS", "WINDOW", "Connection", "HostEvent", "Key", "Owed", "State"]

WINDOW: Final = 256 * 1024
"""Our receive window, bytes: what a client that does not read can make us hold."""

_U32: Final = 0xFFFF_FFFF
_HALF: Final = 1 << 31


class Key(NamedTuple):
    """What tells one connection of a guest from another."""

    guest_port: int
    host_port: int


class State(enum.IntEnum):
    """Where a connection is in its life."""

    REQUESTED = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class HostEvent(enum.IntEnum):
    """What the host's client does; numbers beyond those of `Op`."""

    END = 101  # it will send no more
    GONE = 102  # it will neither send nor receive


_S, _H = State, HostEvent

TRANSITIONS: Final[dict[State, dict[int, State]]] = {
    _S.REQUESTED: {Op.RESPONSE: _S.OPEN, Op.RST: _S.CLOSED},
    _S.OPEN: {
        Op.RW: _S.OPEN,
        Op.SHUTDOWN: _S.OPEN,
        Op.CREDIT_UPDATE: _S.OPEN,
        Op.CREDIT_REQUEST: _S.OPEN,
        Op.RST: _S.CLOSED,
        _H.END: _S.OPEN,
        _H.GONE: _S.CLOSING,
    },
    _S.CLOSING: {
        Op.RW: _S.CLOSING,
        Op.SHUTDOWN: _S.CLOSING,
        Op.CREDIT_UPDATE: _S.CLOSING,
        Op.CREDIT_REQUEST: _S.CLOSING,
        Op.RST: _S.CLOSED,
    },
    _S.CLOSED: {},
}


class Owed:
    """Packets that wait for room in the guest's receive ring; each at most once."""

    NOTHING: Final = 0
    REQUEST: Final = 1
    RESPONSE: Final = 2
    CREDIT_UPDATE: Final = 4
    CREDIT_REQUEST: Final = 8
    SHUTDOWN: Final = 16


# In the order in which they have to go out.
_PACKETS: Final = (
    (Owed.REQUEST, Op.REQUEST),
    (Owed.RESPONSE, Op.RESPONSE),
    (Owed.CREDIT_UPDATE, Op.CREDIT_UPDATE),
    (Owed.CREDIT_REQUEST, Op.CREDIT_REQUEST),
    (Owed.SHUTDOWN, Op.SHUTDOWN),
)


class Connection:
    """The state machine of one connection; the switch moves its bytes and its packets."""

    __slots__ = (
        "_asked",
        "_fwd_cnt",
        "_guest_cid",
        "_peer_alloc",
        "_peer_fwd",
        "_received",
        "_sent",
        "_told_fwd",
        "guest_done",
        "host_done",
        "key",
        "owed",
        "state",
    )

    def __init__(self, guest_cid: int, key: Key, request: Header | None = None):
        """Begin a connection: the guest's if its ``request`` is given, else the host's."""
        self._guest_cid = guest_cid
        self.key = key
        self.guest_done: int = Shutdown.NONE
        self.host_done: int = Shutdown.NONE
        self._received = self._fwd_cnt = self._told_fwd = 0
        self._sent = self._peer_alloc = self._peer_fwd = 0
        self._asked = False
        if request is None:
            self.state = State.REQUESTED
            self.owed: int = Owed.REQUEST
        else:
            self.state = State.OPEN
            self.owed = Owed.RESPONSE
            self._take_credit(request)

    def receive(self, header: Header) -> None:
        """Take a packet from the guest; the payload of a RW packet has to follow it at once.

        Raises VsockError for a packet that this state does not allow, or that lies about credit.
        """
        op = header.op
        after = TRANSITIONS[self.state].get(op)
        if after is None:
            raise VsockError(f"a packet of operation {op} while {self.state.name}")
        if op == Op.RW:
            if self.guest_done & Shutdown.SEND:
                raise VsockError("data after the guest's end of data")
            if self.held + header.length > WINDOW:
                raise VsockError(f"{header.length} bytes where the window has {WINDOW - self.held}")
        elif header.length:
            raise VsockError(f"a packet of operation {op} with a payload")
        elif op == Op.SHUTDOWN and (header.flags & ~Shutdown.BOTH or not header.flags):
            raise VsockError(f"a shutdown with the flags {header.flags:#x}")
        self._take_credit(header)
        self.state = after
        if op == Op.RW:
            self._received = (self._received + header.length) & _U32
        elif op == Op.SHUTDOWN:
            self.guest_done |= header.flags
        elif op == Op.CREDIT_REQUEST:
            self.owed |= Owed.CREDIT_UPDATE

    def host_end(self) -> None:
        """Note that the client sends no more; all that it sent is with the guest."""
        self._apply(HostEvent.END)
        if not self.host_done & Shutdown.SEND:
            self.host_done |= Shutdown.SEND
            self.owed |= Owed.SHUTDOWN

    def host_gone(self) -> None:
        """Note that the client is away; what comes for it is thrown away."""
        self._apply(HostEvent.GONE)
        self.host_done = Shutdown.BOTH
        self.owed |= Owed.SHUTDOWN

    def host_deaf(self) -> None:
        """Note that the client reads no more, while it may still send."""
        self._apply(HostEvent.END)
        if not self.host_done & Shutdown.RECEIVE:
            self.host_done |= Shutdown.RECEIVE
            self.owed |= Owed.SHUTDOWN

    @property
    def held(self) -> int:
        """How many bytes of the guest's have come and not been delivered."""
        return (self._received - self._fwd_cnt) & _U32

    def delivered(self, count: int) -> None:
        """Note that ``count`` bytes of the guest's have left our hands."""
        self._fwd_cnt = (self._fwd_cnt + count) & _U32
        # In steps of half a window: the guest goes on with the other half meanwhile. Linux never
        # has more under way than its own window, which a program may have made small.
        step = min(WINDOW, self._peer_alloc) // 2
        if (self._fwd_cnt - self._told_fwd) & _U32 > step:
            self.owed |= Owed.CREDIT_UPDATE

    @property
    def may_send(self) -> bool:
        """Whether data may go to the guest, credit aside."""
        return (
            self.state is State.OPEN
            and not self.host_done & Shutdown.SEND
            and not self.guest_done & Shutdown.RECEIVE
        )

    @property
    def credit(self) -> int:
        """How many bytes the guest has room for; never negative."""
        return max(0, self._peer_alloc - ((self._sent - self._peer_fwd) & _U32))

    def sent(self, count: int) -> None:
        """Note that ``count`` bytes have gone to the guest."""
        self._sent = (self._sent + count) & _U32

    def ask_for_credit(self) -> None:
        """Owe the guest one question for credit, until an answer comes."""
        if not self._asked:
            self._asked = True
            self.owed |= Owed.CREDIT_REQUEST

    def next_packet(self) -> Header | None:
        """Return the next packet that is owed, and owe it no more."""
        for owed, op in _PACKETS:
            if self.owed & owed:
                self.owed &= ~owed
                flags = self.host_done if op is Op.SHUTDOWN else 0
                return self.header(op, flags=flags)
        return None

    def header(self, op: int, length: int = 0, flags: int = 0) -> Header:
        """Return the header of a packet to the guest; it tells of the window as it is now."""
        self._told_fwd = self._fwd_cnt
        self.owed &= ~Owed.CREDIT_UPDATE
        guest_port, host_port = self.key
        return Header(
            HOST_CID,
            self._guest_cid,
            host_port,
            guest_port,
            length,
            STREAM,
            op,
            flags,
            WINDOW,
            self._fwd_cnt,
        )

    def _apply(self, event: HostEvent) -> None:
        after = TRANSITIONS[self.state].get(event)
        if after is None:
            raise VsockError(f"the host's {event.name} while {self.state.name}")
        self.state = after

    def _take_credit(self, header: Header) -> None:
        freed = (header.fwd_cnt - self._peer_fwd) & _U32
        if freed < _HALF:
            if freed > (self._sent - self._peer_fwd) & _U32:
                raise VsockError("the guest has taken more bytes than were sent")
            self._peer_fwd = header.fwd_cnt
        # Else it is older news: a guest's threads fill in the counter before they queue up.
        self._peer_alloc = header.buf_alloc
        self._asked = False
