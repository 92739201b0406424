"""Hypervisors: find machines, learn their state, reach their endpoints.

`Machine`
    what a hypervisor knows of one machine: name, UUID, state, endpoints
`Hypervisor`
    what every hypervisor can do: list its machines, look one up
`Qemu`
    machines whose QMP sockets lie in a directory
`QmpClient`
    the monitor of one QEMU
"""

from vmconnect.hypervisor.base import GuestNote, Hypervisor, Machine, PowerState
from vmconnect.hypervisor.qemu import Qemu
from vmconnect.hypervisor.qmp import QmpClient

__all__ = ["GuestNote", "Hypervisor", "Machine", "PowerState", "Qemu", "QmpClient"]
