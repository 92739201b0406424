"""What a device does while it runs: take clients and front ends, and keep the rings moving."""

from __future__ import annotations

import resource
import socket
import time
from typing import TYPE_CHECKING, Final

from vmconnect.errors import ResourceError, VhostUserError, VmconnectError, VsockError
from vmconnect.vsock.front_end import FrontEnd
from vmconnect.vsock.listener import Listener
from vmconnect.vsock.poller import EDGE, ENDED, READABLE, Handler, Poller
from vmconnect.vsock.switch import SWEEP_SECONDS, Switch

if TYPE_CHECKING:
    import logging

__all__ = ["Service"]

_MAX_CONNECTIONS: Final = 1024
# Descriptors that are not connections: sockets, rings, and what else the process has open.
_SPARE_DESCRIPTORS: Final = 64
_ACCEPTS_A_ROUND: Final = 32
# Front ends that wait for the present one to leave.
_MAX_WAITING: Final = 8
# Between two warnings: a guest can break its rings as often as it likes, and whoever reads our
# standard error shall not be flooded, nor shall we wait for one that does not read.
_WARNING_SECONDS: Final = 1.0


class Service:
    """The sockets of a device, and the round that serves them."""

    def __init__(self, front_path: str, uds: str, guest_cid: int):
        """Open both sockets. Raises ResourceError, with nothing left open."""
        self._uds = uds
        self._guest_cid = guest_cid
        self._front_ends = Listener(front_path)
        try:
            self._clients = Listener(uds)
        except BaseException:
            self._front_ends.close()
            raise
        self.poller = Poller()
        self._switch = Switch(guest_cid, self.poller, self._dial, _connection_limit())
        self._front_end: FrontEnd | None = None
        self._waiting: list[socket.socket] = []
        self._more = False
        self._next_sweep = 0.0
        self._resting: list[tuple[Listener, Handler]] = []
        self._next_warning = 0.0
        self._log: logging.Logger | None = None
        self.poller.add(self._front_ends.socket.fileno(), READABLE, self._take_front_end)
        self.poller.add(self._clients.socket.fileno(), READABLE, self._take_clients)

    def prepare(self) -> None:
        """Do what need not be done before the sockets are there; once, before the first round.

        Logging would be a third of the time that the device takes to start; and when there is
        something to warn of, descriptors may have run out, and nothing can be imported.
        """
        import logging

        self._log = logging.getLogger("vmconnect.vsock")

    def round(self) -> None:
        """Wait for something to do, and do some of it."""
        if self._more:
            seconds = 0.0
        elif self._switch.timed or self._resting:
            seconds = SWEEP_SECONDS
        else:
            seconds = -1.0
        self.poller.poll(seconds)
        self._turn_rings()
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            self._switch.sweep()
            for listener, take in self._resting:
                self.poller.add(listener.socket.fileno(), READABLE, take)
            self._resting.clear()
            self._turn_rings()

    def close(self) -> None:
        """End all connections and remove both sockets."""
        if self._front_end is not None:
            self._front_end.close()
        self._switch.close()
        for sock in self._waiting:
            sock.close()
        self.poller.close()
        self._front_ends.close()
        self._clients.close()

    def _turn_rings(self) -> None:
        front_end = self._front_end
        if front_end is None:
            self._more = False
            return
        try:
            transmit, more_out = self._switch.transmit()
            receive, more_in = self._switch.receive()
        except VsockError as error:
            self._warn("the guest broke its vsock rings: %s; waiting for its next start", error)
            front_end.ring_broke()
            self._more = False
            return
        if receive or transmit:
            front_end.interrupt(receive=receive, transmit=transmit)
        self._more = more_out or more_in

    # The host's programs.

    def _take_clients(self, events: int) -> None:
        try:
            for _ in range(_ACCEPTS_A_ROUND):
                sock = self._clients.accept()
                if sock is None:
                    return
                self._switch.accept(sock)
        except ResourceError as error:
            self._rest(self._clients, self._take_clients, error)

    def _rest(self, listener: Listener, take: Handler, error: ResourceError) -> None:
        """Leave whoever waits in the backlog until the next sweep."""
        self._warn("%s", error)
        self._resting.append((listener, take))
        self.poller.remove(listener.socket.fileno())

    def _dial(self, port: int) -> socket.socket | None:
        """Connect to what listens on the host for ``port`` of the guest's."""
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return None
        try:
            sock.connect(f"{self._uds}_{port}")
        except OSError:  # Nobody listens, or the backlog is full.
            sock.close()
            return None
        return sock

    # Front ends.

    def _take_front_end(self, events: int) -> None:
        try:
            sock = self._front_ends.accept()
        except ResourceError as error:
            self._rest(self._front_ends, self._take_front_end, error)
            return
        if sock is None:
            return
        if len(self._waiting) >= _MAX_WAITING:
            sock.close()
            return
        sock.setblocking(False)
        self._waiting.append(sock)
        self.poller.add(sock.fileno(), READABLE | ENDED | EDGE, self._elect)

    def _elect(self, events: int = 0) -> None:
        """Serve the first waiting front end that has said something, if none is served.

        One that only looks whether somebody listens says nothing, and is forgotten when it leaves.
        """
        while self._front_end is None and (sock := self._next_front_end()) is not None:
            self.poller.remove(sock.fileno())
            self._front_end = FrontEnd(sock, self.poller, self._switch, self._guest_cid)
            self.poller.add(sock.fileno(), READABLE | ENDED | EDGE, self._serve_front_end)
            self._hear_front_end(self._front_end)

    def _next_front_end(self) -> socket.socket | None:
        for sock in list(self._waiting):
            try:
                ahead = sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                ahead = b""
            self._waiting.remove(sock)
            if ahead:
                return sock
            self.poller.retire(sock)
        return None

    def _serve_front_end(self, events: int) -> None:
        if self._front_end is not None:
            self._hear_front_end(self._front_end)
            self._elect()

    def _hear_front_end(self, front_end: FrontEnd) -> None:
        """Do what the front end says; when it is wrong, or gone, be without one."""
        try:
            if front_end.receive():
                return
        except VhostUserError as error:
            self._warn("the front end broke the vhost-user protocol: %s", error)
        except VmconnectError as error:
            self._warn("the front end cannot be served: %s", error)
        front_end.close()
        self._front_end = None

    def _warn(self, text: str, *values: object) -> None:
        now = time.monotonic()
        if self._log is not None and now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            self._log.warning(text, *values)


def _connection_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_CONNECTIONS
    return max(2, min(_MAX_CONNECTIONS, soft - _SPARE_DESCRIPTORS))
