"""How a machine's screen and guest are reached, as the machine is at this moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectError,
    MachineOffError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.retry import Backoff, Heartbeat, Retry
from vmconnect.session.agent_access import has_agent
from vmconnect.session.key_store import Origin, PublicKey
from vmconnect.session.locator import Locator
from vmconnect.session.ports import vsock_ports
from vmconnect.streams import Endpoint, Stream, dial

if TYPE_CHECKING:  # numpy is imported by who needs a console.
    from vmconnect.session.server_keys import ServerKeyStore
    from vmconnect.vnc.policy import Policy
    from vmconnect.vnc.route import Route

__all__ = ["HERE", "Access", "Decision", "DialledAhead", "refuse"]

# What it costs to ask decides how often: sockets of this host can be tried all the time, so that
# nothing of a machine's start is missed; libvirt tells when it is worth it; a network is spared.
HERE = Backoff(0.02, 0.25)
_LIBVIRT = Backoff(0.1, 2.0)
_NETWORK = Backoff(0.2, 5.0)

_OFF_STATES = {PowerState.OFF, PowerState.SAVED, PowerState.CRASHED}

Decision = Callable[[PublicKey], bool]
"""Whether a key that was never seen is the machine's."""
Opener = Callable[[Deadline], Stream]


def refuse(_key: PublicKey) -> bool:
    """Trust no key that was never seen."""
    return False


def _accept(_key: PublicKey) -> bool:
    return True


class Access:
    """Connects to the machine that ``locator`` finds; each call finds it anew."""

    def __init__(self, locator: Locator, server_keys: ServerKeyStore | None, heartbeat: Heartbeat):
        self._locator = locator
        self._server_keys = server_keys
        self._heartbeat = heartbeat

    def console_route(self, policy: Policy | None, accept: Decision, deadline: Deadline) -> Route:
        """Find the machine, and connect to its screen, in whatever way there is now."""
        from vmconnect.vnc.route import Route

        machine = self._locator.locate(deadline)
        endpoint = machine.console
        if endpoint is None and not machine.handed_console:
            raise self._missing(machine, "console")
        if endpoint is not None and policy is not None:
            from vmconnect.streams import certified

            secured = certified(endpoint, policy.authority, policy.certificate, policy.private_key)
            if secured != endpoint:  # Then it is TLS below RFB that they are for.
                endpoint = secured
                policy = replace(policy, authority=None, certificate=None, private_key=None)
        demanded = self._console_policy(policy, endpoint, accept)
        local = endpoint is None or endpoint.local
        if endpoint is None:
            stream = self._handed_console(deadline)
        else:
            stream = self._dial(endpoint, deadline)
        return Route(stream, demanded, local, self.heartbeat_over(endpoint))

    def _console_policy(
        self, policy: Policy | None, endpoint: Endpoint | None, accept: Decision
    ) -> Policy:
        """Return ``policy`` with what it leaves open taken from the machine."""
        from vmconnect.session.server_keys import ServerKeyStore
        from vmconnect.vnc.policy import Policy, ServerKey

        policy = policy or Policy()
        machine, keys = self._locator.machine, self._server_keys or ServerKeyStore()
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
        locator = self._locator
        if locator.hypervisor is None:
            raise self._missing(locator.machine, "console")
        return locator.hypervisor.open_console(locator.machine, deadline)

    def guest_stream(self, deadline: Deadline) -> Stream:
        """Find the machine, and connect to its guest's SSH server."""
        machine = self._locator.locate(deadline)
        if machine.guest is None:
            raise self._missing(machine, "vsock device")
        return self._dial(machine.guest, deadline)

    def guest_port(self, port: int, deadline: Deadline) -> Stream:
        """Find the machine, and connect to another vsock port of its guest."""
        machine = self._locator.locate(deadline)
        dial_port = vsock_ports(machine.guest)
        if dial_port is None:
            raise self._missing(machine, "vsock device")
        return dial_port(port, deadline)

    def agent_machine(self, deadline: Deadline) -> Machine:
        """Find the machine, and return it for its guest agent to be opened."""
        machine = self._locator.locate(deadline)
        lacks = machine.trouble is not None and not has_agent(machine)
        if lacks or machine.state in _OFF_STATES:
            raise self._missing(machine, "guest agent")
        return machine

    def _dial(self, endpoint: Endpoint, deadline: Deadline) -> Stream:
        try:
            return dial(endpoint, deadline)
        except VmconnectError as error:
            # It may be elsewhere by now.
            self._locator.doubt()
            raise error.with_machine(self._locator.machine.name) from error.__cause__

    def _missing(self, machine: Machine, what: str) -> VmconnectError:
        """Return why there is none of ``what``."""
        if machine.state in _OFF_STATES:
            hint = f"vmconnect power {machine.name} on"
            return MachineOffError(machine.state.value, machine=machine.name, hint=hint)
        if machine.trouble is not None:
            return ConnectError(f"it does not answer: {machine.trouble}", machine=machine.name)
        return UnsupportedError(
            f"no {what} is known of it",
            machine=machine.name,
            hint="vmconnect list shows what each machine has",
        )

    def heartbeat_over(self, endpoint: Endpoint | None) -> Heartbeat:
        """Return how often a far end is asked after: whether one on this host is there, is seen."""
        if endpoint is None or (endpoint.local and endpoint.private):
            return replace(self._heartbeat, patience_s=None)
        return self._heartbeat

    def retry(self) -> Retry:
        """Return the pauses for one channel."""
        machine = self._locator.machine
        if machine.hypervisor == "libvirt":
            return Retry(_LIBVIRT)
        far = any(each and not each.local for each in (machine.console, machine.guest))
        return Retry(_NETWORK if far else HERE)


class DialledAhead(Closing):
    """An opener that has dialled once already when it is first asked; to be closed if it is not."""

    def __init__(self, opener: Opener, deadline: Deadline):
        self._opener = opener
        self._stream: Stream | None = None
        # Whoever needs the stream dials again, and meets the error where it is dealt with.
        with contextlib.suppress(VmconnectError):
            self._stream = opener(deadline)

    def __call__(self, deadline: Deadline) -> Stream:
        """Return that stream the first time, and dial ever after."""
        stream, self._stream = self._stream, None
        return stream or self._opener(deadline)

    def close(self) -> None:
        """Close the stream that nobody has taken; to be asked is still allowed."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
