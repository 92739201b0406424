"""What every hypervisor tells of its machines."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from vmconnect.secret import Secret
from vmconnect.streams import Endpoint

__all__ = ["GuestNote", "Machine", "PowerState"]


class PowerState(enum.Enum):
    """What a machine is doing, in words that all hypervisors share."""

    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"
    SAVED = "saved"  # off, and its next start goes on where it was
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
    ``target`` is a text that finds the machine again. ``console`` (RFB), ``guest`` (vsock),
    ``agent`` (the guest agent's channel) and ``serial`` are None where the machine has none;
    a serial port that is no socket is the path of its terminal or file. A machine with
    ``handed_console`` may listen nowhere, but its hypervisor hands out connections to its screen;
    with ``relayed_agent``, the hypervisor has the guest agent's channel to itself, and passes
    requests on. With ``clipboard``, its console shares the guest's. ``console_user`` and
    ``console_password`` are what an address or a connection file says of how to log in there.
    ``trouble`` is what is wrong, such as why the state is UNKNOWN, and what would help.
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
    agent: Endpoint | None = None
    serial: Endpoint | Path | None = None
    handed_console: bool = False
    relayed_agent: bool = False
    clipboard: bool = False
    console_user: str | None = None
    console_password: Secret | None = None
    trouble: str | None = None
