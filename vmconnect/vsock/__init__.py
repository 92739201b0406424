"""A user-space vsock device for QEMU: no kernel module, no root.

QEMU's ``vhost-user-vsock-pci`` on one UNIX socket, hybrid vsock (``CONNECT <port>``) on another.
In reading order:

`message`, `front_end`
    the vhost-user protocol: QEMU says where the guest's memory and rings are
`memory`, `virtqueue`
    the guest's bytes, behind checked addresses, and the rings that name them
`packet`, `connection`
    vsock itself: 44 bytes of header, and one connection's states and credit
`receive_ring`, `client`, `switch`
    bytes between the guest's rings and the host's sockets, each touched once
`poller`, `listener`, `service`
    the descriptors that are waited for, and the round that serves them
`device`, `command`
    `VsockDevice` for programs, ``vmconnect vsock-device`` for people

All of it runs in one thread, and holds to one rule: what the guest says is checked before it is
used, costs bounded memory, and at worst ends the guest's own connections.
"""

from vmconnect.vsock.device import VsockDevice

__all__ = ["VsockDevice"]
