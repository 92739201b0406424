"""What every hypervisor tells of its machines."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from vmconnect.deadline import Deadline
from vmconnect.streams import Endpoint

__all__ = ["GuestNote", "Hypervisor", "Machine", "PowerState"]


class PowerState(enum.Enum):
    """What a machine is doing, in words that all hypervisors share."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GuestNote:
    """What whoever started a machine left word of: how to log in to its guest.

    ``host_key`` is an OpenSSH public key line; ``identity_file`` the path of a private key.
    """

    user: str | None = None
    identity_file: str | None = None
    host_key: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine as its hypervisor, or its bare address, describes it at one moment.

    ``identity`` is what trust is pinned to: the UUID where there is one, else the address.
    ``target`` is a text that finds the machine again. ``console`` and ``guest`` are None where
    the machine has no such endpoint.
    """

    name: str
    identity: str
    target: str
    hypervisor: str | None = None
    uuid: str | None = None
    state: PowerState = PowerState.UNKNOWN
    console: Endpoint | None = None
    guest: Endpoint | None = None
    note: GuestNote = GuestNote()


class Hypervisor(Protocol):
    """A place where machines run."""

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every machine, by name; one that does not answer has state UNKNOWN."""

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines with that name or UUID: none, one, or several."""
