"""A client that says by SOCKS where it wants to be connected to."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

from vmconnect.direct.forward.connection import Connection
from vmconnect.direct.forward.loop import Loop
from vmconnect.direct.forward.refusal import outcome_of, refused
from vmconnect.direct.forward.socks import SocksNegotiation, SocksOutcome
from vmconnect.errors import ConnectionLostError, ProtocolError, VmconnectError
from vmconnect.streams import Tcp, Unix

__all__ = ["SocksClient"]

_READ_BYTES = 1 << 10


class SocksClient:
    """Reads a connection's request, has ``open_target`` open what it asks for, and answers it.

    ``fail`` breaks the connection off and tells why. All in the loop's thread.
    """

    def __init__(
        self,
        connection: Connection,
        loop: Loop,
        machine: str,
        open_target: Callable[[Connection, Tcp | Unix], object],
        fail: Callable[[Connection, VmconnectError], object],
    ):
        self._connection = connection
        self._loop = loop
        self._machine = machine
        self._open_target = open_target
        self._fail = fail
        self._negotiation = SocksNegotiation()

    def start(self) -> None:
        """Wait for what the client says."""
        self._loop.add(self._connection.descriptor, self._ready)
        self._listen()

    def _listen(self) -> None:
        self._loop.arm(self._connection.descriptor, select.EPOLLIN)

    def _ready(self, _events: int) -> None:
        connection, negotiation = self._connection, self._negotiation
        scratch = self._loop.scratch[:_READ_BYTES]
        try:
            count = connection.stream.receive_at_once(scratch)
            if count == 0:
                connection.finish()  # It has thought better of it.
                return
            if count:
                negotiation.feed(bytes(scratch[:count]))
            self._say(negotiation.replies)
        except ConnectionLostError:
            connection.finish()
            return
        except ProtocolError as error:
            self._give_up(negotiation.replies, error)
            return
        if negotiation.request is None:
            self._listen()
            return
        self._connect(negotiation.request)

    def _connect(self, target: Tcp) -> None:
        connection, negotiation = self._connection, self._negotiation
        self._loop.remove(connection.descriptor)
        connection.watch()
        connection.early = negotiation.early
        connection.greeting = negotiation.conclude(SocksOutcome.GRANTED)
        connection.on_refused = lambda reason, text: self._refuse(target, reason, text)
        self._open_target(connection, target)

    def _refuse(self, target: Tcp, reason: int, text: str) -> None:
        reply = self._negotiation.conclude(outcome_of(reason))
        self._give_up(reply, refused(target, reason, text, self._machine))

    def _give_up(self, reply: bytes, error: VmconnectError) -> None:
        self._say(reply)
        self._connection.finish()  # A reset could overtake the reply.
        self._fail(self._connection, error.with_machine(self._machine))

    def _say(self, reply: bytes) -> None:
        if reply:
            with contextlib.suppress(VmconnectError):
                self._connection.stream.send_at_once(reply)
