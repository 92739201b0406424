"""A forward: something listens, and who connects there is joined to the other side."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from vmconnect.channel import Channel, ChannelState, StateChange
from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.direct.forward.channel import ForwardChannel
from vmconnect.direct.forward.client import SocksClient
from vmconnect.direct.forward.connection import Connection
from vmconnect.direct.forward.guest_listener import GuestListener
from vmconnect.direct.forward.listener import Listener
from vmconnect.direct.forward.loop import Loop
from vmconnect.direct.forward.refusal import refused
from vmconnect.direct.forward.spec import ForwardKind, ForwardSpec
from vmconnect.direct.forward.tally import Tally
from vmconnect.direct.transport import (
    CONNECT_FAILED,
    SENDING_FAILED,
    SHORTAGE,
    ForwardingTransport,
    Offer,
)
from vmconnect.errors import (
    AuthenticationError,
    ClosedError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    TrustError,
    VmconnectError,
)
from vmconnect.operation import Operations
from vmconnect.streams import SocketStream, Tcp, Unix, dial

if TYPE_CHECKING:
    from vmconnect.direct.ssh import SshConnection

__all__ = ["Connect", "Forward"]

Connect = Callable[[Deadline], "SshConnection"]
"""Returns an SSH connection that stands, making one if need be."""

_MOST_CONNECTIONS = 1024
# The guest alone says how many it offers, and a process often may have 1024 descriptors in all.
_MOST_OFFERED = 256
_CONNECT_SECONDS = 30.0
_DIAL_SECONDS = 10.0
_DIALLERS = 8
_RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# To try again would not help.
_HOPELESS = (ClosedError, AuthenticationError, TrustError)


class Forward(Closing):
    """Listens until it is closed; made by `vmconnect.direct.Guest.forward`.

    Its connections are served side by side in one thread, and one that breaks is no other's
    business: ``on_trouble`` is called with the error, in a thread of ours, and must not raise. When
    the guest's connection is lost its connections end; later ones are joined once there is another.
    """

    def __init__(
        self,
        spec: ForwardSpec,
        machine: str,
        connect: Connect,
        operations: Operations,
        *,
        on_trouble: Callable[[VmconnectError], object] | None = None,
        timeout: Deadline | float | None = 30.0,
    ):
        self.spec = spec
        self.machine = machine
        self.tally = Tally()
        """What has gone over it."""
        self._connect = connect
        self._on_trouble = on_trouble or (lambda _error: None)
        self._connections: set[Connection] = set()
        # What the guest has offered, until it is a connection or refused.
        self._offers: set[Offer] = set()
        self._pending: deque[tuple[Connection, Tcp | Unix]] = deque()
        self._ssh: SshConnection | None = None
        self._connecting = False
        # What the guest was last asked to listen on.
        self._asked: ForwardingTransport | None = None
        self._paused = False
        self._closed = threading.Event()
        self._ending = contextlib.ExitStack()
        self._listener: Listener | None = None
        self._guest_listener: GuestListener | None = None
        self._diallers: ThreadPoolExecutor | None = None
        try:
            self._listen(Deadline.of(timeout))
        except VmconnectError as error:
            raise error.with_machine(machine) from error.__cause__
        self._operation = self._ending.enter_context(
            operations.doing("forward", kind=spec.kind.name.lower(), spec=str(spec))
        )

    @classmethod
    def over(
        cls,
        channel: Channel,
        connect: Connect,
        spec: ForwardSpec | str,
        kind: ForwardKind | str = ForwardKind.LOCAL,
        *,
        on_trouble: Callable[[VmconnectError], object] | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Self:
        """Make one that comes back, and is closed, with the guest's channel."""
        if isinstance(spec, str):
            spec = ForwardSpec.read(spec, ForwardKind(kind))
        forward = cls(
            spec,
            channel.machine,
            connect,
            channel.operations,
            on_trouble=on_trouble,
            timeout=timeout,
        )
        # A channel lives longer than most of its forwards.
        known = weakref.ref(forward)

        def follow(change: StateChange) -> None:
            if (living := known()) is None:
                return
            if change.after is ChannelState.CLOSED:
                living.close()
            elif change.after is ChannelState.READY:
                living.come_back()

        channel.on_state(follow)
        if not channel.alive:
            forward.close()
        return forward

    @property
    def bound(self) -> Tcp | Unix:
        """Where it listens, here or in the guest; a port 0 has become the one that was free."""
        if self._guest_listener is not None:
            return self._guest_listener.bound
        assert self._listener is not None  # noqa: S101 (one of them listens)
        return self._listener.bound

    @property
    def closed(self) -> bool:
        """Whether it listens no more."""
        return self._closed.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is closed; return False if it is not in time."""
        return self._closed.wait(timeout)

    def come_back(self) -> None:
        """Let the guest listen again, after its connection was lost; from any thread."""
        if self._guest_listener is not None and not self.closed:
            self._loop.call(self._resume)

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._listener is not None:
            # Here and now: a guest that reads nothing may hold the loop's thread up.
            self._listener.refuse()
        self._loop.stop(self._shut)
        if self._diallers is not None:
            self._diallers.shutdown(wait=False, cancel_futures=True)
        self._operation.sent, self._operation.received = self.tally.sent, self.tally.received
        self._operation.details["connections"] = self.tally.opened
        self._ending.close()

    def _listen(self, deadline: Deadline) -> None:
        # The connection is there, or an error is: not first when somebody connects.
        self._ssh = self._connect(deadline)
        if self.spec.kind is not ForwardKind.REMOTE:
            self._listener = Listener(self.spec.listen)
            self._loop = Loop("vmconnect-forward")
            for sock in self._listener.sockets:
                self._loop.call(functools.partial(self._serve, sock))
            return
        self._diallers = ThreadPoolExecutor(_DIALLERS, "vmconnect-forward-dial")
        self._loop = Loop("vmconnect-forward")
        self._guest_listener = GuestListener(self.spec.listen, self._take_offer, self.come_back)
        self._asked = self._ssh.transport
        try:
            self._guest_listener.listen(self._ssh.transport, deadline)
        except BaseException:
            self._loop.stop(self._shut)
            raise

    # In the loop's thread.

    def _serve(self, sock: socket.socket) -> None:
        self._loop.add(sock.fileno(), lambda _events: self._accept(sock))
        self._loop.arm(sock.fileno(), 1)

    def _accept(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if len(self._connections) >= _MOST_CONNECTIONS:
                    self._paused = True
                    return  # Who comes now waits in the kernel.
                try:
                    accepted, _ = sock.accept()
                except (ConnectionError, InterruptedError):
                    continue
                except BlockingIOError:
                    break
                except OSError:
                    self._paused = True  # No descriptors are left, until a connection ends.
                    return
                self._welcome(accepted)
        self._loop.arm(sock.fileno(), 1)

    def _welcome(self, accepted: socket.socket) -> None:
        accepted.setblocking(True)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = SocketStream(accepted, "a forwarded connection")
        connection = Connection(stream, self._loop, self.tally, self._forget, accepted)
        self._connections.add(connection)
        target = self.spec.target
        if target is None:
            SocksClient(connection, self._loop, self.machine, self._open, self._fail).start()
            return
        connection.watch()
        connection.on_refused = lambda reason, text: self._fail(
            connection, refused(target, reason, text, self.machine)
        )
        self._open(connection, target)

    def _open(self, connection: Connection, target: Tcp | Unix) -> None:
        """Have the guest connect to the target for a connection."""
        ssh = self._ssh
        if ssh is None or not ssh.alive:
            self._pending.append((connection, target))
            self._reconnect()
            return
        channel = ForwardChannel(ssh.transport, connection)
        connection.attach(channel)
        try:
            _ask(ssh.transport, channel, target)
        except SENDING_FAILED as error:
            lost = ConnectionLostError(f"the connection broke: {error}", machine=self.machine)
            self._fail(connection, lost)

    def _fail(self, connection: Connection, error: VmconnectError) -> None:
        self.tally.failed += 1
        self._on_trouble(error)
        connection.break_off()

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self._paused and self._listener is not None and not self.closed:
            self._paused = False
            for sock in self._listener.sockets:
                self._loop.arm(sock.fileno(), 1)

    def _reconnect(self) -> None:
        """Get another connection to the guest, in a thread of its own."""
        if self._connecting:
            return
        self._connecting = True

        threading.Thread(target=self._try, name="vmconnect-forward-connect", daemon=True).start()

    def _try(self) -> None:
        """Connect; where it is the guest that listens, until that succeeds."""
        pauses = iter(_RETRY_SECONDS)
        pause = 0.0
        while True:
            ssh, failure = None, None
            try:
                ssh = self._connect(Deadline(_CONNECT_SECONDS))
            except VmconnectError as error:
                failure = error.with_machine(self.machine)
            if (
                ssh is not None
                or self._guest_listener is None
                or isinstance(failure, _HOPELESS)
                or self._closed.wait(pause := next(pauses, pause))
            ):
                break
        self._loop.call(lambda: self._reconnected(ssh, failure))

    def _reconnected(self, ssh: SshConnection | None, error: VmconnectError | None) -> None:
        self._connecting = False
        pending, self._pending = self._pending, deque()
        if ssh is not None:
            self._ssh = ssh
            for connection, target in pending:
                self._open(connection, target)
            self._resume()
        elif error is not None:
            for connection, _ in pending:
                self._fail(connection, error)

    def _resume(self) -> None:
        """Let the guest listen on the present connection."""
        listener, ssh = self._guest_listener, self._ssh
        if listener is None or self.closed:
            return
        if ssh is None or not ssh.alive:
            self._reconnect()
        elif ssh.transport is not self._asked:
            self._asked = ssh.transport
            threading.Thread(
                target=self._listen_again,
                args=(listener, ssh.transport),
                name="vmconnect-forward-listen",
                daemon=True,
            ).start()

    def _listen_again(self, listener: GuestListener, transport: ForwardingTransport) -> None:
        """Let the guest listen, for which its server before may have to let go of the port."""
        for pause in (*_RETRY_SECONDS, None):
            try:
                listener.listen(transport, Deadline(_CONNECT_SECONDS))
            except (GuestError, DeadlineError) as error:
                if self.closed:
                    return
                if pause is None:
                    self._on_trouble(error.with_machine(self.machine))
                elif self._closed.wait(pause):
                    return
            except (VmconnectError, *SENDING_FAILED):
                return  # It is lost, too; the next connection is told likewise.
            else:
                if self.closed:
                    with contextlib.suppress(*SENDING_FAILED):
                        listener.close()
                return

    def _shut(self) -> None:
        if self._listener is not None:
            for sock in self._listener.sockets:
                self._loop.remove(sock.fileno())
            self._listener.close()
        if self._guest_listener is not None:
            with contextlib.suppress(*SENDING_FAILED):
                self._guest_listener.close()
        for offer in tuple(self._offers):
            self._refuse(offer, SHORTAGE)
        self._pending.clear()
        for connection in tuple(self._connections):
            connection.finish()

    # What the guest has taken a call on.

    def _take_offer(self, offer: Offer) -> None:
        """Take a channel that the guest opens; in the transport's thread."""
        under_way = len(self._connections) + len(self._offers)
        if self.closed or under_way >= _MOST_OFFERED:
            offer.refuse_now(SHORTAGE)
            return
        self._offers.add(offer)
        if not self._loop.call(lambda: self._dial_for(offer)) and offer in self._offers:
            self._offers.discard(offer)
            offer.refuse_now(SHORTAGE)

    def _dial_for(self, offer: Offer) -> None:
        if self._diallers is None or self.closed:
            self._refuse(offer, SHORTAGE)
            return
        target = self.spec.target
        assert target is not None  # noqa: S101 (the parser sees to it)
        with contextlib.suppress(RuntimeError):  # It is being closed.
            self._diallers.submit(self._dial, offer, target)

    def _dial(self, offer: Offer, target: Tcp | Unix) -> None:
        """Connect on this side, in a thread of its own."""
        try:
            stream = dial(target, _DIAL_SECONDS)
        except VmconnectError as error:
            failure = error.with_machine(self.machine)
            self._loop.call(lambda: self._undialled(offer, failure))
            return
        assert isinstance(stream, SocketStream)  # noqa: S101 (as of every address of this host)
        if not self._loop.call(lambda: self._dialled(offer, stream)):
            stream.close()

    def _undialled(self, offer: Offer, error: VmconnectError) -> None:
        if offer not in self._offers:
            return  # It was refused when the forward was closed.
        self.tally.failed += 1
        self._refuse(offer, CONNECT_FAILED)
        self._on_trouble(error)

    def _dialled(self, offer: Offer, stream: SocketStream) -> None:
        if offer not in self._offers:
            stream.close()  # It was refused when the forward was closed.
            return
        connection = Connection(stream, self._loop, self.tally, self._forget)
        # In this order: it counts all the while.
        self._connections.add(connection)
        self._offers.discard(offer)
        connection.watch()
        channel = ForwardChannel(offer.transport, connection)
        connection.attach(channel)
        try:
            offer.accept(channel)
        except SENDING_FAILED:
            connection.break_off()

    def _refuse(self, offer: Offer, reason: int) -> None:
        if offer not in self._offers:
            return
        self._offers.discard(offer)
        with contextlib.suppress(*SENDING_FAILED):
            offer.refuse(reason)

    def __repr__(self) -> str:
        return f"<Forward -{self.spec.kind.value} {self.spec} of {self.machine}>"


def _ask(transport: ForwardingTransport, channel: ForwardChannel, target: Tcp | Unix) -> None:
    if isinstance(target, Unix):
        # The two fields are kept for later (PROTOCOL, section 2.4).
        transport.open_forward(channel, "direct-streamlocal@openssh.com", target.path, "", 0)
    else:
        # Who has connected here is nobody's business there.
        transport.open_forward(channel, "direct-tcpip", target.host, target.port, "127.0.0.1", 0)
