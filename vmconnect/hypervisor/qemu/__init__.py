"""QEMU, by its QMP monitors.

`Qemu`
    the machines whose monitors lie in a directory (``qemu.py``)
`description`
    what a monitor tells of its machine; ``note`` what lies beside it
`storage`
    checkpoints in qcow2 disks, and media
`display`
    screenshots, keys, console connections and passwords
`watch`
    events
"""

from vmconnect.hypervisor.qemu.qemu import Qemu

__all__ = ["Qemu"]
