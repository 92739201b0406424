"""Hypervisors that are asked by REST over a UNIX socket.

`CloudHypervisor`, `Firecracker`
    machines whose API sockets lie in a directory, one socket a machine
`http`
    a small HTTP/1.1 client that bounds everything a server may answer
`snapshots`
    where their checkpoints are kept: neither keeps account of its own
"""

from vmconnect.hypervisor.rest.cloud_hypervisor import CloudHypervisor
from vmconnect.hypervisor.rest.firecracker import Firecracker

__all__ = ["CloudHypervisor", "Firecracker"]
