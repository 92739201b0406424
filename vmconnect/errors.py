"""Every error that vmconnect raises, in one tree.

::

    VmconnectError                  what failed, on which machine, what to do next
    +-- TargetError                 a target that cannot be read, or names nothing
    |   +-- MachineNotFoundError    no machine of that name here
    |   +-- AmbiguousTargetError    more than one machine of that name
    +-- UnsupportedError            this machine or hypervisor has no such thing
    |   +-- CapabilityError         no machine of this hypervisor has
    +-- MissingDependencyError      a program or package that is not installed
    +-- ResourceError               disk, memory, permission: the local system said no
    |   +-- DisplayError            no display to open a window on
    +-- ConnectError                nobody answers at an endpoint
    +-- ConnectionLostError         a connection that was open has ended
    |   +-- CommandLostError        ... while a command ran over it
    +-- DeadlineError               something took longer than it was given
    +-- ClosedError                 the caller closed the object before
    +-- StateError                  an operation that the present state does not allow
    |   +-- MachineOffError         the machine is off, or gone: it can be waited for
    +-- ProtocolError               the far end sent what its protocol does not allow
    |   +-- RfbError                a VNC server did
    |   +-- QmpError                a QEMU monitor did
    |   +-- VhostUserError          a vhost-user front end (QEMU) did
    |   +-- VsockError              a vsock driver (the guest) did
    |   +-- SshError                an SSH server did
    |   +-- AgentError              a guest agent did
    |   +-- CopyError               the far end of a copy did
    |   +-- RestError               a hypervisor's HTTP server did
    |   +-- TlsError                the far end of a TLS connection did
    |   +-- WebSocketError          a WebSocket server did
    +-- AuthenticationError         the far end refused who we are
    |   +-- NoCredentialsError      it asks for what nobody has given
    +-- TrustError                  we refuse who the far end says it is
    |   +-- HostKeyUnknownError     first contact, and nobody accepted the key
    |   +-- HostKeyChangedError     not the key that is pinned to the machine
    |   +-- MachineReplacedError    another machine is where this one was
    +-- HypervisorError             the hypervisor refused a command
    +-- GuestError                  the guest refused a request
    |   +-- GuestPythonError        a function of ours raised something there

Foreign exceptions (OSError, paramiko's, json's) are translated where they are met, with the
original as ``__cause__``; none leaves the public API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "AgentError",
    "AmbiguousTargetError",
    "AuthenticationError",
    "CapabilityError",
    "ClosedError",
    "CommandLostError",
    "ConnectError",
    "ConnectionLostError",
    "CopyError",
    "DeadlineError",
    "DisplayError",
    "GuestError",
    "GuestPythonError",
    "HostKeyChangedError",
    "HostKeyUnknownError",
    "HypervisorError",
    "MachineNotFoundError",
    "MachineOffError",
    "MachineReplacedError",
    "MissingDependencyError",
    "NoCredentialsError",
    "ProtocolError",
    "QmpError",
    "ResourceError",
    "RestError",
    "RfbError",
    "SshError",
    "StateError",
    "TargetError",
    "TlsError",
    "TrustError",
    "UnsupportedError",
    "VhostUserError",
    "VmconnectError",
    "VsockError",
    "WebSocketError",
]


class VmconnectError(Exception):
    """The root of the tree: one sentence on what failed, and one on what to do next.

    ``machine`` is the machine's name or the endpoint's address; a layer that knows it better
    than the one that raised may fill it in while the error passes (``with_machine``).
    ``temporary`` says that the same may work later with nothing changed on our side: whoever
    reconnects tries again.
    """

    temporary: ClassVar[bool] = False

    def __init__(self, message: str, *, machine: str | None = None, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.machine = machine
        self.hint = hint

    def with_machine(self, machine: str) -> VmconnectError:
        """Name the machine, unless it is named already, and return the error itself."""
        if self.machine is None:
            self.machine = machine
        return self

    def __str__(self) -> str:
        text = f"{self.machine}: {self._account()}" if self.machine else self._account()
        return f"{text} ({self.hint})" if self.hint else text

    def _account(self) -> str:
        """Return what failed, without the machine and the hint."""
        return self.message


class TargetError(VmconnectError):
    """A target that cannot be read, or that names nothing."""


class MachineNotFoundError(TargetError):
    """No machine of that name is known here."""

    temporary = True


class AmbiguousTargetError(TargetError):
    """A name that more than one machine bears."""


class UnsupportedError(VmconnectError):
    """This machine, hypervisor or endpoint has no such capability."""


class CapabilityError(UnsupportedError):
    """The hypervisor has no such capability, whatever the machine; the hint names who has."""


class MissingDependencyError(VmconnectError):
    """A program or package that is not installed; the hint names what brings it."""


class ResourceError(VmconnectError):
    """The local system refused: disk full, permission denied, address too long."""


class DisplayError(ResourceError):
    """There is no display to open a window on."""


class ConnectError(VmconnectError):
    """Nobody answers at an endpoint, or the connection was refused."""

    temporary = True


class ConnectionLostError(VmconnectError, ConnectionError):
    """A connection that was open has ended before its work was done.

    Also a ``ConnectionError``, so that a library reading from a stream of ours understands it.
    """

    temporary = True


class CommandLostError(ConnectionLostError):
    """A connection has ended under a command of which it is not known how it went on.

    ``started`` is whether the guest had said that it runs; False means that it is not known. The
    command is never run again by itself: it may have had its effect.
    """

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str],
        started: bool,
        machine: str | None = None,
        hint: str | None = None,
    ):
        super().__init__(message, machine=machine, hint=hint)
        self.argv = tuple(argv)
        self.started = started


class DeadlineError(VmconnectError, TimeoutError):
    """Something took longer than it was given.

    Also a ``TimeoutError``, so that a library reading from a stream of ours understands it.
    """

    temporary = True


class ClosedError(VmconnectError):
    """The object was closed before, by its owner."""


class StateError(VmconnectError):
    """An operation or a transition that the present state does not allow."""


class MachineOffError(StateError):
    """The machine is off, or its hypervisor does not know it now; it may come back.

    ``state`` is what it is, in a word that follows "it is": off, saved, crashed.
    """

    temporary = True

    def __init__(self, state: str, *, machine: str | None = None, hint: str | None = None):
        super().__init__(f"it is {state}", machine=machine, hint=hint)
        self.state = state


class ProtocolError(VmconnectError):
    """The far end sent what its protocol does not allow.

    ``offset`` is the place in the received bytes, counted from the connection's first, where the
    parser can tell it.
    """

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        machine: str | None = None,
        hint: str | None = None,
    ):
        super().__init__(message, machine=machine, hint=hint)
        self.offset = offset

    def _account(self) -> str:
        return self.message if self.offset is None else f"{self.message}, at byte {self.offset}"


class RfbError(ProtocolError):
    """A VNC server broke RFB (RFC 6143)."""


class QmpError(ProtocolError):
    """A QEMU monitor broke QMP."""


class VhostUserError(ProtocolError):
    """A vhost-user front end broke the vhost-user protocol."""


class VsockError(ProtocolError):
    """A guest's driver broke the virtio or vsock rules."""


class SshError(ProtocolError):
    """An SSH server broke the SSH protocol."""


class AgentError(ProtocolError):
    """A guest's agent broke its protocol."""


class CopyError(ProtocolError):
    """The far end of a copy broke the protocol of copies."""


class RestError(ProtocolError):
    """The HTTP server of a hypervisor broke HTTP, or its own API."""


class TlsError(ProtocolError):
    """The far end of a TLS connection broke TLS, or refused to go on with it."""


class WebSocketError(ProtocolError):
    """A WebSocket server broke the protocol, or sent what is no stream of bytes."""


class AuthenticationError(VmconnectError):
    """The far end refused the credentials, or offers no login that we can make.

    ``offered`` are the names of the logins that it offers, as far as it has told them.
    """

    offered: tuple[str, ...] = ()


class NoCredentialsError(AuthenticationError):
    """The far end asks for a password or a user, and nobody has given one."""


class TrustError(VmconnectError):
    """We refuse who the far end says it is."""


class HostKeyUnknownError(TrustError):
    """The machine's host key was never seen, and nobody accepted it."""


class HostKeyChangedError(TrustError):
    """The machine showed another host key than the one that is pinned to it."""


class MachineReplacedError(TrustError):
    """Another machine, by its UUID, is where this one was: nothing of this one's is told to it."""


class HypervisorError(VmconnectError):
    """The hypervisor understood a command and refused it."""

    temporary = True


class GuestError(VmconnectError):
    """The guest understood a request and refused it."""


class GuestPythonError(GuestError):
    """A function that a guest's Python called has raised something.

    ``kind`` is the name of the exception's class; ``traceback`` is as that Python prints it. Both
    are the guest's word.
    """

    def __init__(self, message: str, *, kind: str, traceback: str, machine: str | None = None):
        super().__init__(message, machine=machine)
        self.kind = kind
        self.traceback = traceback
