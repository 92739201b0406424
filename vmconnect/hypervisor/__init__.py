"""Hypervisors: find machines, learn their state, reach their endpoints, and act on them.

`Machine`
    what a hypervisor knows of one machine: name, UUID, state, endpoints
`Hypervisor`, `Capability`
    the one interface of all, and which parts of it one has
`Qemu`
    machines whose QMP sockets lie in a directory
`Watch`, `MachineEvent`
    what happens to machines, as it happens
`QmpClient`
    the monitor of one QEMU
"""

from vmconnect.hypervisor.base import Capability, Checkpoint, Drive, Hypervisor
from vmconnect.hypervisor.machine import GuestNote, Machine, PowerState
from vmconnect.hypervisor.qemu import Qemu
from vmconnect.hypervisor.qmp import QmpClient
from vmconnect.hypervisor.watch import EventKind, MachineEvent, Watch

__all__ = [
    "Capability",
    "Checkpoint",
    "Drive",
    "EventKind",
    "GuestNote",
    "Hypervisor",
    "Machine",
    "MachineEvent",
    "PowerState",
    "Qemu",
    "QmpClient",
    "Watch",
]
KINDS = (Qemu,)
