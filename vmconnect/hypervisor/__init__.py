"""Hypervisors: find machines, learn their state, reach their endpoints, and act on them.

`Machine`
    what a hypervisor knows of one machine: name, UUID, state, endpoints
`Hypervisor`, `Capability`
    the one interface of all, and which parts of it one has
`Qemu`
    machines whose QMP sockets lie in a directory
`Libvirt`
    the machines of a libvirt daemon
`CloudHypervisor`, `Firecracker`
    machines whose API sockets lie in a directory
`Watch`, `MachineEvent`
    what happens to machines, as it happens
`QmpClient`
    the monitor of one QEMU
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vmconnect.hypervisor.base import Capability, Checkpoint, Drive, Hypervisor
from vmconnect.hypervisor.machine import GuestNote, Machine, PowerState
from vmconnect.hypervisor.qemu import Qemu
from vmconnect.hypervisor.qmp import QmpClient

if TYPE_CHECKING:
    from vmconnect.hypervisor.libvirt import Libvirt, LibvirtAddress
    from vmconnect.hypervisor.rest import CloudHypervisor, Firecracker
    from vmconnect.hypervisor.watch import EventKind, MachineEvent, Watch

__all__ = [
    "Capability",
    "Checkpoint",
    "CloudHypervisor",
    "Drive",
    "EventKind",
    "Firecracker",
    "GuestNote",
    "Hypervisor",
    "Libvirt",
    "LibvirtAddress",
    "Machine",
    "MachineEvent",
    "PowerState",
    "Qemu",
    "QmpClient",
    "Watch",
    "kinds",
]

# What most commands never need is imported when it is first named.
_HOMES = {
    "CloudHypervisor": "vmconnect.hypervisor.rest",
    "Firecracker": "vmconnect.hypervisor.rest",
    "EventKind": "vmconnect.hypervisor.watch",
    "MachineEvent": "vmconnect.hypervisor.watch",
    "Watch": "vmconnect.hypervisor.watch",
    "Libvirt": "vmconnect.hypervisor.libvirt",
    "LibvirtAddress": "vmconnect.hypervisor.libvirt",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def kinds() -> list[type[Hypervisor]]:
    """Return every kind of hypervisor that there is."""
    from vmconnect.hypervisor.libvirt import Libvirt
    from vmconnect.hypervisor.rest import CloudHypervisor, Firecracker

    return [Qemu, Libvirt, CloudHypervisor, Firecracker]
