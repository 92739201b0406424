"""What a session tells its subscribers."""

from __future__ import annotations

from dataclasses import dataclass, field

from vmconnect.errors import VmconnectError
from vmconnect.hypervisor import Machine
from vmconnect.session.states import SessionState

__all__ = [
    "ChannelBack",
    "ChannelClosed",
    "ChannelLost",
    "MachineMoved",
    "MachineReset",
    "MachineStateChanged",
    "SessionEvent",
]


@dataclass(frozen=True, slots=True)
class MachineStateChanged:
    """The machine went from one state to another; ``reason`` is why nobody can be asked."""

    machine: str
    before: SessionState
    after: SessionState
    reason: VmconnectError | None = None


@dataclass(frozen=True, slots=True)
class MachineReset:
    """The machine was reset, or its guest has rebooted, where the hypervisor tells of it."""

    machine: str


@dataclass(frozen=True, slots=True)
class MachineMoved:
    """The machine is reached at other addresses than before: ports, paths, a context id."""

    machine: str
    before: Machine
    after: Machine


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """A channel ("console", "guest") has lost its connection, and why; it tries to come back.

    ``unsent`` had been taken from the caller, and is certain not to have arrived. ``uncertain`` was
    sent, and nobody knows whether it arrived or how it ended. All else that was taken has arrived.
    ``released`` keys and buttons were held, and are not any more. Keys are named as
    `vmconnect.vnc.keys.key` takes them, commands as a shell would read them; what was typed may be
    a password, and is not in the ``repr``.
    """

    machine: str
    channel: str
    reason: VmconnectError
    unsent: tuple[str, ...] = field(default=(), repr=False)
    uncertain: tuple[str, ...] = field(default=(), repr=False)
    released: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChannelBack:
    """A channel that was lost has a connection again, ``after_s`` seconds later."""

    machine: str
    channel: str
    after_s: float


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """A channel has ended for good; ``reason`` is None if it was closed."""

    machine: str
    channel: str
    reason: VmconnectError | None


SessionEvent = (
    ChannelBack | ChannelClosed | ChannelLost | MachineMoved | MachineReset | MachineStateChanged
)
