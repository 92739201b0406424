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
from vmconnect.secret import Secret
from vmconnect.session.agent_access import has_agent, told_host_keys
from vmconnect.session.credentials import console_password, console_user, login_for
from vmconnect.session.journal import journalled
from vmconnect.session.key_store import Origin, PublicKey
from vmconnect.session.ports import vsock_ports
from vmconnect.session.resolve import hypervisor_of, resolve
from vmconnect.session.target import Target, parse_target
from vmconnect.session.trust import HostKey, TrustStore
from vmconnect.streams import Endpoint, Stream, dial

if TYPE_CHECKING:  # numpy and paramiko are imported by the channel that needs them.
    from vmconnect.direct import Guest
    from vmconnect.session.server_keys import ServerKeyStore
    from vmconnect.vnc import Console
    from vmconnect.vnc.credentials import Answer
    from vmconnect.vnc.policy import Policy
    from vmconnect.vnc.preference import Preference

__all__ = ["Session", "connect"]

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
        password: Answer = None,
        user: Answer = None,
        accept_host_key: Decision = _refuse,
        policy: Policy | None = None,
        preference: Preference | None = None,
        tap: Callable[[memoryview], object] | None = None,
        timeout: Deadline | float | None = 10.0,
    ) -> Console:
        """Attach to the machine's screen and return when the server has let us in.

        ``password`` and ``user``, or ways to ask for them, are used only if the server wants
        them; by default what came with the target is, what the environment or the keyring has, or
        the person at the terminal is asked (`vmconnect.session.credentials`).
        What of ``policy`` is left open follows from the machine: a socket on this host is private;
        a server's key is pinned to the machine, ``accept_host_key`` decides on one that was never
        seen, and a machine with a pinned key must show it ever after. Encodings follow from
        ``preference`` and the link. ``tap`` is called with all that the server sends once it has
        let us in: `vmconnect.vnc.recording.Recorder.write` records it.

        Raises UnsupportedError for a machine with no console, ConnectError, DeadlineError,
        RfbError, AuthenticationError, TrustError.
        """
        from vmconnect.vnc import Console
        from vmconnect.vnc.credentials import concealed

        password, user = concealed(password), concealed(user)
        endpoint = self.machine.console
        opener: Opener = self._handed_console
        if endpoint is not None or not self.machine.handed_console:
            endpoint = self._endpoint("console", endpoint)
            if policy is not None:
                from vmconnect.streams import certified

                secured = certified(
                    endpoint, policy.authority, policy.certificate, policy.private_key
                )
                if secured != endpoint:  # Then it is TLS below RFB that they are for.
                    endpoint = secured
                    policy = replace(policy, authority=None, certificate=None, private_key=None)
            opener = self._opener(endpoint)
        machine, name = self.machine, self.machine.name
        return self._keep(
            Console.open(
                opener,
                name,
                password=password or console_password(machine),
                user=user or console_user(machine),
                policy=self._console_policy(policy, endpoint, accept_host_key),
                preference=preference,
                tap=tap,
                local=endpoint is None or endpoint.local,
                timeout=timeout,
            )
        )

    @journalled("guest", "login", lambda guest: {"user": guest.login.user, "method": guest.method})
    def guest(
        self,
        *,
        user: str | None = None,
        identity_files: Sequence[Path] = (),
        password: Secret | str | None = None,
        passphrase: Secret | str | None = None,
        agent_socket: str | None = None,
        accept_host_key: Decision = _refuse,
        timeout: Deadline | float | None = 30.0,
        wait: bool = False,
    ) -> Guest:
        """Log in to the machine's guest over vsock.

        ``agent_socket`` is that of the ssh-agent to ask, if it is not SSH_AUTH_SOCK's.
        With ``identity_files``, which ``passphrase`` opens, or with a ``password``, nothing else is
        tried; without, all that `vmconnect.session.credentials` finds, up to the guest agent.
        On first contact the guest agent tells the host keys; where there is none,
        ``accept_host_key`` decides. They are then pinned. ``wait``
        keeps trying until ``timeout`` while nobody answers, as in a guest that is starting.

        Raises UnsupportedError for a machine with no vsock, ConnectError, DeadlineError,
        TrustError, AuthenticationError, SshError.
        """
        machine = self.machine
        password, passphrase = Secret.of(password), Secret.of(passphrase)
        deadline = Deadline.of(timeout)
        opener = _DialledAhead(
            self._opener(self._endpoint("vsock device", machine.guest)), deadline
        )

        from vmconnect.direct import Guest  # Slow: the guest's sshd starts meanwhile.

        noted = HostKey.from_line(machine.note.host_key or "")

        def check(kind: str, blob: bytes) -> None:
            key = HostKey(kind, blob)
            self.trust.check(
                machine.identity,
                key,
                machine.name,
                accept_host_key,
                provisioned=noted,
                vouched=(lambda: told_host_keys(machine, deadline)) if has_agent(machine) else None,
            )

        known = [noted] if noted else self.trust.pinned(machine.identity)
        guest = self._keep(
            Guest.open(
                opener,
                machine.name,
                login_for(
                    machine, user, identity_files, password, passphrase, agent_socket=agent_socket
                ),
                check,
                known_key_kinds=[key.kind for key in known],
                timeout=deadline,
                wait=wait,
            )
        )
        guest.dial_port = vsock_ports(machine.guest)
        return guest

    def guest_stream(self, timeout: Deadline | float | None = 10.0) -> Stream:
        """Return a connection to the guest's SSH server, which nobody has spoken over yet."""
        opener = self._opener(self._endpoint("vsock device", self.machine.guest))
        return opener(Deadline.of(timeout))

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
        private = policy.private or endpoint is None or endpoint.private

        def check(key: ServerKey) -> None:
            # Whoever owns a socket here is who it is.
            keys.check(
                machine.identity,
                key,
                machine.name,
                _accept if private else accept,
                origin=Origin.LOCAL if private else Origin.ACCEPTED,
            )

        return replace(
            policy,
            private=private,
            check_key=policy.check_key or check,
            verified=policy.verified or bool(policy.authority or keys.pinned(machine.identity)),
            server_name=policy.server_name or (endpoint.hostname if endpoint else None),
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
