"""The guest's SSH server, as it listens for us (RFC 4254, section 7.1; PROTOCOL, section 2.4)."""

from __future__ import annotations

import threading
from collections.abc import Callable

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
        answered = threading.Event()
        answers: list[VmconnectError | None] = []

        def take(error: VmconnectError | None) -> None:
            answers.append(error)
            answered.set()

        self._ask(transport, take)
        if not answered.wait(deadline.remaining()):
            raise DeadlineError(f"the guest does not say whether it listens on {self.bound}")
        if answers[0] is not None:
            raise answers[0]

    def close(self) -> None:
        """Have the guest listen no more; does not wait for its answer."""
        transport, bound = self.transport, self.bound
        if transport is None or not transport.is_active():
            return
        transport.takers.pop(_key(bound), None)
        if isinstance(bound, Unix):
            transport.request_global(
                "cancel-streamlocal-forward@openssh.com", bound.path, answer=_ignore
            )
        else:
            transport.request_global(
                "cancel-tcpip-forward", _bind(bound), bound.port, answer=_ignore
            )

    def _ask(
        self, transport: ForwardingTransport, take: Callable[[VmconnectError | None], object]
    ) -> None:
        where = self.bound

        def answer(message: paramiko.Message | None) -> None:
            if message is None:
                take(self._refusal(transport))
                return
            if isinstance(where, Tcp) and not where.port:
                # The server tells which port was free.
                port = message.get_int()
                if not 0 < port <= _MOST_PORT:
                    take(SshError(f"the guest's SSH server says that it listens on port {port}"))
                    return
                self.bound = Tcp(where.host, port)
            # In the transport's thread: nobody can have been connected before.
            transport.takers[_key(self.bound)] = (self._taker, self._lost)
            self.transport = transport
            take(None)

        if isinstance(where, Unix):
            transport.request_global("streamlocal-forward@openssh.com", where.path, answer=answer)
        else:
            transport.request_global("tcpip-forward", _bind(where), where.port, answer=answer)

    def _refusal(self, transport: ForwardingTransport) -> VmconnectError:
        if not transport.is_active():
            return ConnectionLostError("the connection broke while the guest was to listen")
        allowed = permission(self.bound)
        there = "is there such a file" if isinstance(self.bound, Unix) else "is it in use there"
        return GuestError(
            f"the guest's SSH server refuses to listen on {self.bound}",
            hint=f"{there}, and does its sshd_config permit it ({allowed})?",
        )


def _key(bound: Tcp | Unix) -> int | str:
    return bound.path if isinstance(bound, Unix) else bound.port


def _bind(where: Tcp) -> str:
    # As the server takes it: nothing is every address.
    return "" if where.host == ANYWHERE else where.host


def _ignore(_answer: paramiko.Message | None) -> None:
    """Whatever it is."""
