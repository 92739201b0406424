"""Where machines are looked for when they are only named, or listed.

``$VMCONNECT_HYPERVISORS`` names the places, separated by spaces: directories of sockets, and
libvirt daemons (``libvirt:///system``, ``libvirt://kvm7/system``). Without it they are the
runtime directory, and the libvirt daemons that this host has.
"""

from __future__ import annotations

import os
from pathlib import Path

from vmconnect.errors import ResourceError, TargetError
from vmconnect.hypervisor import Hypervisor, Qemu
from vmconnect.hypervisor.sockets import libvirt_sockets, may_be, sockets_in
from vmconnect.paths import runtime_directory

__all__ = ["hypervisors", "socket_directories"]

_VARIABLE = "VMCONNECT_HYPERVISORS"


def hypervisors(*, every: bool = False) -> list[Hypervisor]:
    """Return the hypervisors to ask; ``every`` also those that have no machine now.

    Nothing is imported or asked for what is not there: most commands name one machine, and want
    it soon. Raises ResourceError and TargetError for places that cannot be.
    """
    named = os.environ.get(_VARIABLE)
    if named is None:
        return [*_in_directory(runtime_directory(), every), *_libvirt_here()]
    found: list[Hypervisor] = []
    for place in named.split():
        if place.startswith("/"):
            found += _in_directory(Path(place), every)
        else:
            found.append(_libvirt(place))
    return found


def socket_directories() -> list[Path]:
    """Return the directories in which machines' sockets are looked for; ResourceError."""
    named = os.environ.get(_VARIABLE)
    if named is None:
        return [runtime_directory()]
    return [Path(place) for place in named.split() if place.startswith("/")]


def _in_directory(directory: Path, every: bool) -> list[Hypervisor]:
    found: list[Hypervisor] = [Qemu(directory)]
    try:
        others = every or bool(sockets_in(directory, ".ch") or sockets_in(directory, ".fc"))
    except ResourceError:
        others = False  # Qemu tells.
    if others:
        from vmconnect.hypervisor.rest import CloudHypervisor, Firecracker

        found += [CloudHypervisor(directory), Firecracker(directory)]
    return found


def _libvirt(place: str) -> Hypervisor:
    from vmconnect.hypervisor.libvirt import Libvirt, LibvirtAddress

    scheme, colon, rest = place.partition("://")
    kind, plus, transport = scheme.partition("+")
    if not colon or kind not in {"libvirt", "qemu"}:
        raise TargetError(
            f"${_VARIABLE} has {place!r}, which is no place of machines",
            hint="a directory's absolute path, or libvirt:///system",
        )
    address, name = LibvirtAddress.read(f"libvirt{plus}{transport}://{rest}")
    if name:
        raise TargetError(f"${_VARIABLE} has {place!r}, which is one machine", hint="leave it away")
    return Libvirt(address)


def _libvirt_here() -> list[Hypervisor]:
    """Return the daemons of this host that are, or that a connection would start."""
    here = []
    if any(map(may_be, libvirt_sockets("system"))):
        here.append("system")
    # The user's own daemon ends when it is idle, and keeps its machines. Root has none: libvirt
    # takes it to the system's.
    if os.geteuid() != 0 and (any(map(may_be, libvirt_sockets("session"))) or _has_own_domains()):
        here.append("session")
    if not here:
        return []
    from vmconnect.hypervisor.libvirt import Libvirt, LibvirtAddress

    return [Libvirt(LibvirtAddress(path)) for path in here]


def _has_own_domains() -> bool:
    value = os.environ.get("XDG_CONFIG_HOME", "")
    home = Path(value) if value.startswith("/") else Path.home() / ".config"
    try:
        with os.scandir(home / "libvirt" / "qemu") as entries:
            return any(entry.name.endswith(".xml") for entry in entries)
    except OSError:
        return False
