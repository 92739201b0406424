"""How the guest agent of a machine is reached, and what we ask it for on the way in.

One process of a user's talks to a machine's agent at a time: there is a lock for each machine in
the runtime directory. QEMU itself serves one client of a channel; libvirt mixes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    DeadlineError,
    GuestError,
    ResourceError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Hypervisor, Machine
from vmconnect.paths import private_directory, runtime_directory
from vmconnect.session.resolve import hypervisor_of
from vmconnect.session.trust import HostKey
from vmconnect.streams import dial

if TYPE_CHECKING:  # They bring paramiko.
    from paramiko import PKey

    from vmconnect.direct.agent import AgentChannel, GuestAgent

__all__ = ["has_agent", "open_agent", "temporary_key", "told_host_keys"]

# An agent that runs answers at once. One that does not run never does.
_ANSWER_SECONDS = 5.0
_POLL_SECONDS = 0.05
# Where OpenSSH keeps its host keys unless it is told otherwise (sshd_config(5), HostKey).
_HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key.pub" for kind in ("ed25519", "ecdsa", "rsa"))
_KEY_BYTES = 16 << 10
_MACHINE_ID = Path("/etc/machine-id")


def has_agent(machine: Machine) -> bool:
    """Return whether the machine has a channel to a guest agent; there need not be one."""
    return machine.relayed_agent or machine.agent is not None


@contextlib.contextmanager
def open_agent(machine: Machine, timeout: Deadline | float | None = 10.0) -> Iterator[GuestAgent]:
    """Give the machine's guest agent, once it has answered, for the time of a ``with`` block.

    If the deadline's scope is cancelled, the agent is closed, which ends what waits for it.

    Raises UnsupportedError for a machine that has no channel to one, DeadlineError when none
    answers, ConnectError, ConnectionLostError, AgentError, and what a hypervisor raises that has
    the channel to itself.
    """
    from vmconnect.direct.agent import GuestAgent

    if not has_agent(machine):
        raise UnsupportedError(
            "it has no channel to a guest agent",
            machine=machine.name,
            hint=f"vmconnect hints {machine.name} tells what it lacks",
        )
    deadline = Deadline.of(timeout)
    try:
        with (
            _locked(machine, deadline),
            _channel(machine, deadline) as channel,
            GuestAgent(channel, machine.name) as agent,
            deadline.waking(agent.close),
        ):
            agent.ping(deadline)
            yield agent
    except VmconnectError as error:
        raise error.with_machine(machine.name) from error.__cause__


def told_host_keys(machine: Machine, deadline: Deadline) -> list[HostKey]:
    """Return the SSH host keys that the machine's guest agent reads in the guest.

    None where no agent answers, or where it does not permit it.
    """
    found: list[HostKey] = []
    with contextlib.suppress(VmconnectError), open_agent(machine, _soon(deadline)) as agent:
        for path in _HOST_KEYS:
            # Most guests have some of them; one that does not permit it permits it for none.
            with contextlib.suppress(GuestError):
                line = _read(agent, path, _soon(deadline)).decode("ascii", "replace")
                if (key := HostKey.from_line(line)) is not None:
                    found.append(key)
    return found


def _read(agent: GuestAgent, path: str, deadline: Deadline) -> bytes:
    """Return a small file of the guest's; some agents may only run programs."""
    try:
        return agent.read_file(path, limit=_KEY_BYTES, timeout=deadline)
    except UnsupportedError:
        return agent.run(["/bin/cat", "--", path], timeout=deadline).stdout[:_KEY_BYTES]


@contextlib.contextmanager
def temporary_key(machine: Machine, user: str, server: str, deadline: Deadline) -> Iterator[PKey]:
    """Let a fresh key in by the guest agent, give it, and take it out at the end of the block.

    ``server`` is what the guest's SSH server greeted with. Raises as `open_agent`, and GuestError
    when the agent refuses.
    """
    from vmconnect.direct.agent.temporary_key import temporary_key as in_guest

    with (
        open_agent(machine, _soon(deadline)) as agent,
        in_guest(agent, user, _owner(), server, deadline) as key,
    ):
        yield key


def _soon(deadline: Deadline) -> Deadline:
    return deadline.sooner(_ANSWER_SECONDS)


@contextlib.contextmanager
def _channel(machine: Machine, deadline: Deadline) -> Iterator[AgentChannel]:
    if machine.relayed_agent:
        with hypervisor_of(machine) as hypervisor:
            yield _RelayedChannel(hypervisor, machine)
        return
    from vmconnect.direct.agent import StreamChannel

    assert machine.agent is not None  # noqa: S101 (else there is no channel to open)
    channel = StreamChannel(dial(machine.agent, deadline), machine.name)
    try:
        yield channel
    finally:
        channel.close()


class _RelayedChannel:
    """An `AgentChannel` through a hypervisor that has the real one to itself."""

    def __init__(self, hypervisor: Hypervisor, machine: Machine):
        self._hypervisor = hypervisor
        self._machine = machine

    def exchange(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        """Send a request and return its reply; the hypervisor raises what is an error."""
        from vmconnect.direct.agent.protocol import decode_reply, encode_request, most_bytes

        request = encode_request(command, arguments).decode()
        reply = self._hypervisor.ask_agent(self._machine, request, deadline)
        return decode_reply(reply, most_bytes(command))

    def order(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any] | None:
        """Send a request that has a reply only if it fails: then the hypervisor raises it."""
        self.exchange(command, arguments, deadline)
        return None

    def close(self) -> None:
        """Nothing is held between requests."""


@contextlib.contextmanager
def _locked(machine: Machine, deadline: Deadline) -> Iterator[None]:
    """Hold the lock of the machine's agent; it falls when this process dies, however that is."""
    directory = private_directory(runtime_directory() / "agents")
    path = directory / hashlib.sha256(os.fsencode(machine.identity)).hexdigest()[:32]
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ResourceError(f"cannot lock {path}: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline.passed:
                    raise DeadlineError(
                        "another vmconnect is talking to its guest agent", machine=machine.name
                    ) from None
            time.sleep(deadline.remaining(at_most=_POLL_SECONDS) or 0)
        yield
    finally:
        os.close(handle)


def _owner() -> str:
    """Return a UUID that stands for all who share our locks: this user on this host.

    A machine id is not to be shown as it is (machine-id(5)).
    """
    import uuid

    try:
        host = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        host = os.uname().nodename
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{host} {os.getuid()} {runtime_directory()}"))
