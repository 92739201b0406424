"""One machine, live: the session that its console and its guest channel share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmconnect.channel import Channel, ChannelState, StateChange
from vmconnect.closing import Closing, together
from vmconnect.deadline import CancelScope, Deadline
from vmconnect.errors import (
    ClosedError,
    DeadlineError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine
from vmconnect.publisher import Publisher
from vmconnect.retry import Heartbeat, Retry
from vmconnect.secret import Secret
from vmconnect.session.access import HERE, Access, Decision, DialledAhead, refuse
from vmconnect.session.agent_access import has_agent, open_agent, told_host_keys
from vmconnect.session.credentials import (
    ask_secret,
    console_password,
    console_user,
    login_for,
)
from vmconnect.session.events import ChannelBack, ChannelClosed, ChannelLost, SessionEvent
from vmconnect.session.journal import journalled, note_operations
from vmconnect.session.observer import Observer
from vmconnect.session.ports import vsock_ports
from vmconnect.session.resolve import resolve_or_expect
from vmconnect.session.states import SessionState
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore
from vmconnect.streams import Stream

if TYPE_CHECKING:  # numpy and paramiko are imported by the channel that needs them.
    from vmconnect.direct import Guest
    from vmconnect.direct.agent import GuestAgent
    from vmconnect.session.server_keys import ServerKeyStore
    from vmconnect.vnc import Console
    from vmconnect.vnc.credentials import Answer
    from vmconnect.vnc.policy import Policy
    from vmconnect.vnc.preference import Preference

__all__ = ["Session", "connect"]

# How long the guest agent may take to tell the host keys.
_TELLING_SECONDS = 15.0

C = TypeVar("C", bound=Channel)
Subscriber = Callable[[SessionEvent], object]


def connect(
    target: str | Target, timeout: Deadline | float | None = 10.0, *, wait: bool = False
) -> Session:
    """Find the machine that ``target`` means and return a session with it.

    It may be off. ``wait`` looks until ``timeout`` for one that is not there at all: its QEMU,
    say, is to be started yet.

    Raises TargetError, MachineNotFoundError, AmbiguousTargetError, and what the machine's
    hypervisor raises when it does not answer.
    """
    deadline = Deadline.of(timeout)
    parsed = parse_target(target) if isinstance(target, str) else target
    if wait:
        return Session(Retry(HERE).attempt(lambda: resolve_or_expect(parsed, deadline), deadline))
    return Session(resolve_or_expect(parsed, deadline))


class Session(Closing):
    """How one machine is reached and who we are there; opens channels and closes them all.

    Channels that have lost their connection come back by themselves: through a reboot of the
    guest, a restart of the hypervisor, a link that was cut, under whatever address the machine has
    then; but never to another machine, by its UUID. Subscribers hear of it. For any thread.

    ``heartbeat`` says when a far end on another host, or behind a port, that is silent is gone.
    """

    def __init__(
        self,
        machine: Machine,
        trust: TrustStore | None = None,
        server_keys: ServerKeyStore | None = None,
        *,
        heartbeat: Heartbeat | None = None,
    ):
        self.trust = trust or TrustStore()
        self.server_keys = server_keys
        self._news: Publisher[SessionEvent] = Publisher(f"the session with {machine.name}")
        self._observer = Observer(machine, self._news, needed=self._is_needed, on_up=self._hurry)
        self._access = Access(self._observer.locator, server_keys, heartbeat or Heartbeat())
        self._lock = threading.Lock()
        # Each with what ends its waiting, so that all end theirs before one is waited for.
        self._channels: dict[Channel, CancelScope] = {}
        # When those that are lost were lost.
        self._lost_at: dict[Channel, float] = {}
        self._scopes: set[CancelScope] = set()
        self._closed = False

    @property
    def machine(self) -> Machine:
        """The machine as it was found last."""
        return self._observer.locator.machine

    @property
    def state(self) -> SessionState:
        """What the machine was when there was news of it last.

        There is news while anybody subscribes or waits, and while a channel is lost.
        """
        return self._observer.state

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` with every later event, in order, from any thread.

        From then on the machine is followed: by its hypervisor's events where it has some, else
        by asking. See `vmconnect.session.events`.
        """
        self._news.subscribe(subscriber)
        self._observer.follow()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` no more; nothing happens if it is none."""
        self._news.unsubscribe(subscriber)

    def wait_running(self, timeout: Deadline | float | None = None) -> None:
        """Wait until the machine runs; see `wait_state`."""
        self.wait_state(SessionState.RUNNING, timeout=timeout)

    def wait_state(
        self, *states: SessionState, timeout: Deadline | float | None = None
    ) -> SessionState:
        """Wait until the machine is in one of the states, and return which.

        Raises DeadlineError, ClosedError, and UnsupportedError where no hypervisor can be asked.
        """
        locator = self._observer.locator
        if locator.hypervisor is None:
            raise UnsupportedError(
                "an address does not tell whether its machine runs", machine=self.machine.name
            )
        with self._opening() as scope:
            deadline = scope.deadline(timeout)
            # What is known may be old.
            locator.doubt()
            with contextlib.suppress(VmconnectError):
                locator.locate(deadline)
            ends = {*states, SessionState.CLOSED}
            self._observer.wait_for(lambda state: state in ends, deadline)
            if (state := self.state) in states:
                return state
            self._check_open()
            raise DeadlineError(
                f"still {state.value} when the time was over", machine=self.machine.name
            )

    @journalled(
        "console", "open", lambda console: {"login": console.login, "encrypted": console.encrypted}
    )
    def console(
        self,
        *,
        password: Answer = None,
        user: Answer = None,
        accept_host_key: Decision = refuse,
        policy: Policy | None = None,
        preference: Preference | None = None,
        tap: Callable[[memoryview], object] | None = None,
        timeout: Deadline | float | None = 10.0,
        wait: bool = False,
        at_once: bool = False,
        reconnect: bool = True,
    ) -> Console:
        """Attach to the machine's screen and return when the server has let us in.

        ``password`` and ``user``, or ways to ask for them, are used only if the server wants
        them; by default what came with the target is, what the environment or the keyring has, or
        the person at the terminal is asked (`vmconnect.session.credentials`).
        What of ``policy`` is left open follows from the machine: a socket on this host is private;
        a server's key is pinned to the machine, ``accept_host_key`` decides on one that was never
        seen, and a machine with a pinned key must show it ever after. Encodings follow from
        ``preference`` and the link. ``tap`` is called with all that the server sends once it has
        let us in: `vmconnect.vnc.recording.Recorder.write` records it. It hears the first
        connection alone.

        ``wait`` keeps trying until ``timeout`` while the machine is off or nobody answers.
        ``at_once`` returns a console that connects when it can, and says meanwhile why it cannot.
        Without ``reconnect`` the console ends with its connection.

        Raises MachineOffError, UnsupportedError for a machine with no console, ConnectError,
        DeadlineError, RfbError, AuthenticationError, TrustError.
        """
        from vmconnect.vnc import Console
        from vmconnect.vnc.credentials import concealed

        password, user = concealed(password), concealed(user)
        machine, name = self.machine, self.machine.name
        with self._opening() as scope:
            deadline = scope.deadline(timeout)

            def opened(*, retry: Retry | None) -> Console:
                return Console.open(
                    lambda until: self._access.console_route(policy, accept_host_key, until),
                    name,
                    password=password or console_password(machine),
                    user=user or console_user(machine),
                    preference=preference,
                    tap=tap,
                    timeout=deadline,
                    retry=retry,
                    wait=wait,
                    at_once=at_once,
                    scope=scope,
                )

            if reconnect or at_once:
                return self._keep(opened(retry=self._access.retry()), scope)
            if wait:
                once = self._access.retry().attempt(lambda: opened(retry=None), deadline)
                return self._keep(once, scope)
            return self._keep(opened(retry=None), scope)

    @journalled("guest", "login", lambda guest: {"user": guest.login.user, "method": guest.method})
    def guest(
        self,
        *,
        user: str | None = None,
        identity_files: Sequence[Path] = (),
        password: Secret | str | None = None,
        passphrase: Secret | str | None = None,
        agent_socket: str | None = None,
        accept_host_key: Decision = refuse,
        ask: Callable[[str], Secret | None] = ask_secret,
        timeout: Deadline | float | None = 30.0,
        wait: bool = False,
    ) -> Guest:
        """Log in to the machine's guest over vsock.

        ``agent_socket`` is that of the ssh-agent to ask, if it is not SSH_AUTH_SOCK's.
        With ``identity_files``, which ``passphrase`` opens, or with a ``password``, nothing else is
        tried; without, all that `vmconnect.session.credentials` finds, up to the guest agent.
        ``ask`` is called with a prompt for what a person has to answer.
        On first contact the guest agent tells the host keys; where there is none,
        ``accept_host_key`` decides. They are then pinned. ``wait`` keeps trying until ``timeout``
        while the machine is off or nobody answers, as in a guest that is starting.

        Raises MachineOffError, UnsupportedError for a machine with no vsock, ConnectError,
        DeadlineError, TrustError, AuthenticationError, SshError.
        """
        password, passphrase = Secret.of(password), Secret.of(passphrase)
        with contextlib.ExitStack() as stack:
            scope = stack.enter_context(self._opening())
            deadline = scope.deadline(timeout)
            opener = stack.enter_context(DialledAhead(self._access.guest_stream, deadline))

            from vmconnect.direct import Guest  # Slow: the guest's sshd starts meanwhile.

            def noted() -> HostKey | None:
                return HostKey.from_line(self.machine.note.host_key or "")

            def check(kind: str, blob: bytes) -> None:
                machine, key = self.machine, HostKey(kind, blob)

                def told() -> list[HostKey]:
                    return told_host_keys(machine, scope.deadline(_TELLING_SECONDS))

                self.trust.check(
                    machine.identity,
                    key,
                    machine.name,
                    accept_host_key,
                    provisioned=noted(),
                    vouched=told if has_agent(machine) else None,
                )

            written = noted()
            known = [written] if written else self.trust.pinned(self.machine.identity)
            guest = Guest.open(
                opener,
                self.machine.name,
                lambda: login_for(
                    self.machine,
                    user,
                    identity_files,
                    password,
                    passphrase,
                    agent_socket=agent_socket,
                    ask=ask,
                ),
                check,
                known_key_kinds=[key.kind for key in known],
                timeout=deadline,
                wait=wait,
                retry=self._access.retry(),
                heartbeat=self._access.heartbeat_over(self.machine.guest),
                scope=scope,
            )
            if vsock_ports(self.machine.guest) is not None:
                guest.dial_port = self._access.guest_port
            return self._keep(guest, scope)

    @contextlib.contextmanager
    def agent(self, timeout: Deadline | float | None = 10.0) -> Iterator[GuestAgent]:
        """Give the machine's QEMU guest agent, once it has answered, for a ``with`` block.

        Nobody else's process that uses vmconnect talks to it meanwhile. Raises as
        `vmconnect.session.agent_access.open_agent`, and MachineOffError.
        """
        with self._opening() as scope:
            deadline = scope.deadline(timeout)
            machine = self._access.agent_machine(deadline)
            with open_agent(machine, deadline) as agent:
                note_operations("agent", agent.operations, machine)
                yield agent

    def guest_stream(self, timeout: Deadline | float | None = 10.0) -> Stream:
        """Return a connection to the guest's SSH server, which nobody has spoken over yet."""
        with self._opening() as scope:
            return self._access.guest_stream(scope.deadline(timeout))

    def close(self) -> None:
        """Close every channel, also those in the midst of something, and wake all who wait.

        Nothing of the session is left when it returns: no thread, no connection, and nothing that
        runs in the guest but what is to outlive it (`Guest.take_leave`); shells are hung up on.
        """
        with self._lock:
            self._closed = True
            openings, channels = tuple(self._scopes), dict(self._channels)
        self._observer.cancel()
        for scope in openings:
            scope.cancel()
        # Each within some seconds of its own.
        together([each.take_leave for each in channels], Deadline(None))
        for scope in channels.values():
            scope.cancel()
        for channel in reversed(channels):
            channel.close()
        self._observer.close()

    # The channels' life.

    @contextlib.contextmanager
    def _opening(self) -> Iterator[CancelScope]:
        """Give a scope that ends with the session; what waits in the block ends with it."""
        scope = CancelScope()
        with self._lock:
            self._check_open()
            self._scopes.add(scope)
        try:
            yield scope
        except VmconnectError as error:
            if self._closed and not isinstance(error, ClosedError):
                raise self._closed_error() from error
            raise
        finally:
            with self._lock:
                self._scopes.discard(scope)

    def _keep(self, channel: C, scope: CancelScope) -> C:
        """Take a channel on, and hand it out."""
        channel.on_state(lambda change: self._on_channel(channel, change))
        with self._lock:
            closed = self._closed
            if not closed:
                self._channels = {
                    **{each: ends for each, ends in self._channels.items() if each.alive},
                    channel: scope,
                }
                lost = channel.state is not ChannelState.READY
        if closed:
            channel.close()
            raise self._closed_error()
        if lost:
            self._observer.follow()
        return channel

    def _on_channel(self, channel: Channel, change: StateChange) -> None:
        """Tell of what happened to a channel, and see to its coming back."""
        name, kind, reason = channel.machine, channel.kind, change.reason
        if change.before is ChannelState.READY and reason is not None:
            self._lost_at[channel] = time.monotonic()
            self._observer.locator.doubt()
            lost = change.lost
            self._news.publish(
                ChannelLost(name, kind, reason, lost.unsent, lost.uncertain, lost.released)
            )
        if change.after is ChannelState.READY:
            lost_at = self._lost_at.pop(channel, None)
            if lost_at is not None:
                self._news.publish(ChannelBack(name, kind, time.monotonic() - lost_at))
        elif change.after is ChannelState.CLOSED:
            self._lost_at.pop(channel, None)
            self._news.publish(ChannelClosed(name, kind, reason))
        elif change.after is ChannelState.LOST:
            self._observer.follow()

    def _hurry(self) -> None:
        """Let channels that are lost try to come back now."""
        with self._lock:
            channels = tuple(self._channels)
        for channel in channels:
            channel.hurry()

    def _is_needed(self) -> bool:
        """Return whether anybody has use for news of the machine."""
        if self._news.heard:
            return True
        waiting = (ChannelState.CONNECTING, ChannelState.LOST, ChannelState.RECONNECTING)
        return any(channel.state in waiting for channel in tuple(self._channels))

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError("the session is closed", machine=self.machine.name)
