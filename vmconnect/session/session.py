"""One machine, live: the session that its console and its guest channel share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from vmconnect.channel import Channel
from vmconnect.deadline import Deadline
from vmconnect.errors import ClosedError, UnsupportedError, VmconnectError
from vmconnect.hypervisor import Machine
from vmconnect.session.credentials import ask_on_terminal, login_for
from vmconnect.session.journal import journalled
from vmconnect.session.key_store import PublicKey
from vmconnect.session.resolve import hypervisor_of, resolve
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore
from vmconnect.streams import Endpoint, Stream, Tcp, dial

if TYPE_CHECKING:  # numpy and paramiko are imported by the channel that needs them.
    from vmconnect.direct import Guest
    from vmconnect.session.server_keys import ServerKeyStore
    from vmconnect.vnc import Console
    from vmconnect.vnc.credentials import Secret
    from vmconnect.vnc.policy import Policy
    from vmconnect.vnc.preference import Preference

__all__ = ["Session", "connect"]

# Hosts that are this one.
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

C = TypeVar("C", bound=Channel)
Decision = Callable[[PublicKey], bool]
"""Whether a key that was never seen is the machine's."""
Opener = Callable[[Deadline], Stream]


def _refuse(_key: PublicKey) -> bool:
    return False


def _accept(_key: PublicKey) -> bool:
    return True


def connect(target: str | Target, timeout: Deadline | float | None = 10.0) -> Session:
    """Find the machine that ``target`` means and return a session with it.

    Raises TargetError, MachineNotFoundError, AmbiguousTargetError, and what the machine's
    hypervisor raises when it does not answer.
    """
    deadline = Deadline.of(timeout)
    parsed = parse_target(target) if isinstance(target, str) else target
    return Session(resolve(parsed, deadline))


class Session:
    """How one machine is reached and who we are there; opens channels and closes them all."""

    def __init__(
        self,
        machine: Machine,
        trust: TrustStore | None = None,
        server_keys: ServerKeyStore | None = None,
    ):
        self.machine = machine
        self.trust = trust or TrustStore()
        self.server_keys = server_keys
        self._channels: list[Channel] = []
        self._lock = threading.Lock()
        self._closed = False

    @journalled(
        "console", "open", lambda console: {"login": console.login, "encrypted": console.encrypted}
    )
    def console(
        self,
        *,
        password: Secret = None,
        user: Secret = None,
        accept_host_key: Decision = _refuse,
        policy: Policy | None = None,
        preference: Preference | None = None,
        tap: Callable[[memoryview], object] | None = None,
        timeout: Deadline | float | None = 10.0,
    ) -> Console:
        """Attach to the machine's screen and return when the server has let us in.

        ``password`` and ``user``, or ways to ask for them, are used only if the server wants
        them; by default what came with the target is, or the person at the terminal is asked.
        What of ``policy`` is left open follows from the machine: a socket on this host is private;
        a server's key is pinned to the machine, ``accept_host_key`` decides on one that was never
        seen, and a machine with a pinned key must show it ever after. Encodings follow from
        ``preference`` and the link. ``tap`` is called with all that the server sends once it has
        let us in: `vmconnect.vnc.recording.Recorder.write` records it.

        Raises UnsupportedError for a machine with no console, ConnectError, DeadlineError,
        RfbError, AuthenticationError, TrustError.
        """
        from vmconnect.vnc import Console

        endpoint = self.machine.console
        opener: Opener = self._handed_console
        if endpoint is not None or not self.machine.handed_console:
            endpoint = self._endpoint("console", endpoint)
            opener = self._opener(endpoint)
        machine, name = self.machine, self.machine.name
        return self._keep(
            Console.open(
                opener,
                name,
                password=password
                or machine.console_password
                or (lambda: ask_on_terminal(f"VNC password of {name}: ")),
                user=user
                or machine.console_user
                or (lambda: ask_on_terminal(f"VNC user of {name}: ", hidden=False)),
                policy=self._console_policy(policy, endpoint, accept_host_key),
                preference=preference,
                tap=tap,
                local=not isinstance(endpoint, Tcp) or endpoint.host in _LOOPBACK,
                timeout=timeout,
            )
        )

    @journalled("guest", "login", lambda guest: {"user": guest.login.user, "method": guest.method})
    def guest(
        self,
        *,
        user: str | None = None,
        identity_files: Sequence[Path] = (),
        accept_host_key: Decision = _refuse,
        timeout: Deadline | float | None = 30.0,
        wait: bool = False,
    ) -> Guest:
        """Log in to the machine's guest over vsock.

        ``accept_host_key`` decides on a key that was never seen; it is then pinned. ``wait``
        keeps trying until ``timeout`` while nobody answers, as in a guest that is starting.

        Raises UnsupportedError for a machine with no vsock, ConnectError, DeadlineError,
        TrustError, AuthenticationError, SshError.
        """
        machine = self.machine
        deadline = Deadline.of(timeout)
        opener = _DialledAhead(
            self._opener(self._endpoint("vsock device", machine.guest)), deadline
        )

        from vmconnect.direct import Guest  # Slow: the guest's sshd starts meanwhile.

        noted = HostKey.from_line(machine.note.host_key or "")

        def check(kind: str, blob: bytes) -> None:
            key = HostKey(kind, blob)
            self.trust.check(
                machine.identity, key, machine.name, accept_host_key, provisioned=noted
            )

        known = [noted] if noted else self.trust.pinned(machine.identity)
        return self._keep(
            Guest.open(
                opener,
                machine.name,
                login_for(machine, user, identity_files),
                check,
                known_key_kinds=[key.kind for key in known],
                timeout=deadline,
                wait=wait,
            )
        )

    def close(self) -> None:
        """Close every channel, also those in the midst of something."""
        with self._lock:
            self._closed = True
            channels, self._channels = self._channels, []
        for channel in reversed(channels):
            channel.close()

    def _endpoint(self, what: str, endpoint: Endpoint | None) -> Endpoint:
        if endpoint is None:
            raise UnsupportedError(
                f"no {what} is known of it",
                machine=self.machine.name,
                hint="vmconnect list shows what each machine has",
            )
        return endpoint

    def _console_policy(
        self, policy: Policy | None, endpoint: Endpoint | None, accept: Decision
    ) -> Policy:
        """Return ``policy`` with what it leaves open taken from the machine."""
        from vmconnect.session.server_keys import ServerKeyStore
        from vmconnect.vnc.policy import Policy, ServerKey

        policy = policy or Policy()
        machine, keys = self.machine, self.server_keys or ServerKeyStore()
        private = policy.private or not isinstance(endpoint, Tcp)

        def check(key: ServerKey) -> None:
            # Whoever owns a socket here is who it is.
            keys.check(machine.identity, key, machine.name, _accept if private else accept)

        return replace(
            policy,
            private=private,
            check_key=policy.check_key or check,
            verified=policy.verified or bool(policy.authority or keys.pinned(machine.identity)),
            server_name=policy.server_name
            or (endpoint.host if isinstance(endpoint, Tcp) else None),
        )

    def _handed_console(self, deadline: Deadline) -> Stream:
        """Return a connection to the screen of a machine that listens nowhere."""
        with hypervisor_of(self.machine) as hypervisor:
            return hypervisor.open_console(self.machine, deadline)

    def _opener(self, endpoint: Endpoint) -> Opener:
        def open_stream(deadline: Deadline) -> Stream:
            try:
                return dial(endpoint, deadline)
            except VmconnectError as error:
                raise error.with_machine(self.machine.name) from error.__cause__

        return open_stream

    def _keep(self, channel: C) -> C:
        with self._lock:
            if not self._closed:
                self._channels = [each for each in self._channels if each.alive] + [channel]
                return channel
        channel.close()
        raise ClosedError("the session is closed", machine=self.machine.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _DialledAhead:
    """An opener that has dialled once already when it is first asked."""

    def __init__(self, opener: Opener, deadline: Deadline):
        self._opener = opener
        self._stream: Stream | None = None
        # Whoever needs the stream dials again, and meets the error where it is dealt with.
        with contextlib.suppress(VmconnectError):
            self._stream = opener(deadline)

    def __call__(self, deadline: Deadline) -> Stream:
        stream, self._stream = self._stream, None
        return stream or self._opener(deadline)
