"""The guest's SSH server, as it listens for us (RFC 4254, section 7.1; PROTOCOL, section 2.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from vmconnect.deadline import Deadline
from vmconnect.direct.forward.refusal import permission
from vmconnect.direct.forward.spec import ANYWHERE
from vmconnect.direct.library import paramiko
from vmconnect.direct.transport import ForwardingTransport, Offer
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    GuestError,
    SshError,
    VmconnectError,
)
from vmconnect.streams import Tcp, Unix

__all__ = ["GuestListener"]

_MOST_PORT = 65535


@dataclass(slots=True)
class _Asked:
    """A question to the guest: who has asked waits, or has ``given_up``; both with the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answered: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False
    error: VmconnectError | None = None


class GuestListener:
    """Listens in the guest at ``where``; ``taker`` takes the channels that are opened for it.

    ``lost`` is called when the connection ends on which it was asked for.
    ``bound`` is where that is, with the port that a 0 has become; ``transport`` the connection on
    which it was asked for.
    """

    def __init__(
        self, where: Tcp | Unix, taker: Callable[[Offer], object], lost: Callable[[], object]
    ):
        self.bound = where
        self.transport: ForwardingTransport | None = None
        self._taker = taker
        self._lost = lost

    def listen(self, transport: ForwardingTransport, deadline: Deadline) -> None:
        """Have the guest listen.

        Raises GuestError when it refuses, ConnectionLostError, DeadlineError.
        """
        asked = _Asked()
        self._ask(transport, asked)
        try:
            asked.answered.wait(deadline.remaining())
        finally:
            with asked.lock:
                asked.given_up = not asked.answered.is_set()
        if asked.given_up:
            raise DeadlineError(f"the guest does not say whether it listens on {self.bound}")
        if asked.error is not None:
            raise asked.error

    def close(self) -> None:
        """Have the guest listen no more; does not wait for its answer."""
        transport, bound = self.transport, self.bound
        if transport is None or not transport.is_active():
            return
        transport.takers.pop(_key(bound), None)
        _cancel(transport, bound)

    def _ask(self, transport: ForwardingTransport, asked: _Asked) -> None:
        where = self.bound

        def answer(message: paramiko.Message | None) -> None:
            # In the transport's thread: nobody can have been connected before.
            with asked.lock:
                if asked.answered.is_set():
                    return  # A connection's end may be told twice.
                try:
                    bound = self._granted(transport, message)
                except VmconnectError as error:
                    asked.error = error
                else:
                    if asked.given_up:
                        _cancel(transport, bound, at_once=True)
                        return
                    self.bound = bound
                    self.transport = transport
                    transport.takers[_key(bound)] = (self._taker, self._lost)
                asked.answered.set()

        if isinstance(where, Unix):
            transport.request_global("streamlocal-forward@openssh.com", where.path, answer=answer)
        else:
            transport.request_global("tcpip-forward", _bind(where), where.port, answer=answer)

    def _granted(
        self, transport: ForwardingTransport, message: paramiko.Message | None
    ) -> Tcp | Unix:
        """Return where the guest says that it listens."""
        where = self.bound
        if message is None:
            raise self._refusal(transport)
        if isinstance(where, Unix) or where.port:
            return where
        # The server tells which port was free.
        port = message.get_int()
        if not 0 < port <= _MOST_PORT:
            raise SshError(f"the guest's SSH server says that it listens on port {port}")
        return Tcp(where.host, port)

    def _refusal(self, transport: ForwardingTransport) -> VmconnectError:
        if not transport.is_active():
            return ConnectionLostError("the connection broke while the guest was to listen")
        allowed = permission(self.bound)
        there = "is there such a file" if isinstance(self.bound, Unix) else "is it in use there"
        return GuestError(
            f"the guest's SSH server refuses to listen on {self.bound}",
            hint=f"{there}, and does its sshd_config permit it ({allowed})?",
        )


def _cancel(transport: ForwardingTransport, bound: Tcp | Unix, *, at_once: bool = False) -> None:
    if isinstance(bound, Unix):
        kind = "cancel-streamlocal-forward@openssh.com"
        transport.request_global(kind, bound.path, answer=_ignore, at_once=at_once)
    else:
        kind = "cancel-tcpip-forward"
        transport.request_global(kind, _bind(bound), bound.port, answer=_ignore, at_once=at_once)


def _key(bound: Tcp | Unix) -> int | str:
    return bound.path if isinstance(bound, Unix) else bound.port


def _bind(where: Tcp) -> str:
    # As the server takes it: nothing is every address.
    return "" if where.host == ANYWHERE else where.host


def _ignore(_answer: paramiko.Message | None) -> None:
    """Whatever it is."""
