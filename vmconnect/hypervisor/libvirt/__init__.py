"""libvirt, by libvirt-python; the library is imported when a libvirt machine is first asked for.

`Libvirt`
    the machines of one libvirt daemon: ``qemu:///system``, a session, another host
`LibvirtAddress`
    its URI, and the targets of its machines
`connection`
    calls within a deadline, and errors translated
`domain`
    what a domain's XML tells
`watch`
    events
"""

from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.hypervisor.libvirt.libvirt import Libvirt

__all__ = ["Libvirt", "LibvirtAddress"]
