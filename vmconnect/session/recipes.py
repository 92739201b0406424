"""What to write where, so that a machine can be reached: lines for hypervisors and for guests."""

from __future__ import annotations

import enum
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

__all__ = [
    "RECIPES",
    "SERVICE_UNIT",
    "SOCKET_UNIT",
    "Part",
    "Place",
    "Recipe",
    "guest_recipes",
    "recipes_for",
]


class Part(enum.Enum):
    """Something that makes a machine reachable; the value is what it is called."""

    MONITOR = "monitor"
    CONSOLE = "console"
    VSOCK = "vsock"
    SSH = "SSH on vsock"
    AGENT = "guest agent"
    CLIPBOARD = "clipboard"


@dataclass(frozen=True, slots=True)
class Place:
    """What the lines are about: names, paths and numbers in them.

    ``base`` is where a machine's sockets are, without their suffixes; ``cid`` one that no machine
    here has.
    """

    name: str
    base: str
    cid: int = 3


@dataclass(frozen=True, slots=True)
class Recipe:
    """Lines to be written: ``where``, and ``note`` on when, or what else it takes."""

    part: Part
    where: str
    lines: tuple[str, ...]
    note: str = ""


def recipes_for(hypervisor: str, place: Place) -> list[Recipe]:
    """Return the lines for one kind of hypervisor, for all that it can have."""
    return RECIPES[hypervisor](place)


def _qemu(place: Place) -> list[Recipe]:
    where = "QEMU's command line"
    path = place.base.replace(",", ",,")  # QEMU splits options at single commas.

    def options(*pairs: str) -> tuple[str, ...]:
        words = (pair.partition(" ") for pair in pairs)
        return tuple(f"{option} {shlex.quote(value)}" for option, _, value in words)

    vu, uds = shlex.quote(f"{place.base}.vu"), shlex.quote(f"{place.base}.vsock")
    serial = options("-device virtio-serial-pci")
    return [
        Recipe(Part.MONITOR, where, options(f"-qmp unix:{path}.qmp,server=on,wait=off")),
        Recipe(Part.CONSOLE, where, options(f"-vnc unix:{path}.vnc")),
        Recipe(
            Part.AGENT,
            where,
            (
                *serial,
                *options(
                    f"-chardev socket,id=qga,path={path}.qga,server=on,wait=off",
                    "-device virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
                ),
            ),
        ),
        Recipe(
            Part.CLIPBOARD,
            where,
            options(
                "-chardev qemu-vdagent,id=vdagent,clipboard=on",
                "-device virtserialport,chardev=vdagent,name=com.redhat.spice.0",
            ),
            "on the agent's virtio-serial-pci; spice-vdagent runs in the guest",
        ),
        Recipe(
            Part.VSOCK,
            where,
            options(f"-device vhost-vsock-pci,guest-cid={place.cid}"),
            "with the kernel's vhost_vsock, and the permission to use /dev/vhost-vsock",
        ),
        Recipe(
            Part.VSOCK,
            "a process beside QEMU, started before it",
            (f"vmconnect vsock-device --socket {vu} --uds {uds} --cid {place.cid}",),
            "without the kernel's; needs no root",
        ),
        Recipe(
            Part.VSOCK,
            where,
            options(
                "-object memory-backend-memfd,id=mem,size=SIZE,share=on",
                "-machine memory-backend=mem",
                f"-chardev socket,id=vsock,path={path}.vu",
                "-device vhost-user-vsock-pci,chardev=vsock",
            ),
            "for that process; SIZE is that of -m, such as 2G",
        ),
    ]


def _libvirt(place: Place) -> list[Recipe]:
    where = f"<devices> of the domain's XML (virsh edit {shlex.quote(place.name)})"
    socket = quoteattr(f"{place.base}.vnc")
    return [
        Recipe(
            Part.CONSOLE,
            where,
            ("<graphics type='vnc'>", f"  <listen type='socket' socket={socket}/>", "</graphics>"),
            "the path has to be one where the domain's QEMU may write",
        ),
        Recipe(
            Part.VSOCK,
            where,
            ("<vsock model='virtio'>", "  <cid auto='yes'/>", "</vsock>"),
            "with the kernel's vhost_vsock",
        ),
        Recipe(
            Part.AGENT,
            where,
            (
                "<channel type='unix'>",
                "  <target type='virtio' name='org.qemu.guest_agent.0'/>",
                "</channel>",
            ),
        ),
        Recipe(
            Part.CLIPBOARD,
            where,
            (
                "<channel type='qemu-vdagent'>",
                "  <source>",
                "    <clipboard copypaste='yes'/>",
                "  </source>",
                "  <target type='virtio' name='com.redhat.spice.0'/>",
                "</channel>",
            ),
            "libvirt 8.4 and later; spice-vdagent runs in the guest",
        ),
    ]


def _cloud_hypervisor(place: Place) -> list[Recipe]:
    where = "cloud-hypervisor's command line"
    return [
        Recipe(Part.MONITOR, where, (f"--api-socket {shlex.quote(f'{place.base}.ch')}",)),
        Recipe(
            Part.VSOCK,
            where,
            (f"--vsock {shlex.quote(f'cid={place.cid},socket={place.base}.vsock')}",),
        ),
    ]


def _firecracker(place: Place) -> list[Recipe]:
    vsock = {"guest_cid": place.cid, "uds_path": f"{place.base}.vsock"}
    return [
        Recipe(
            Part.MONITOR,
            "firecracker's command line",
            (f"--api-sock {shlex.quote(f'{place.base}.fc')}",),
        ),
        Recipe(
            Part.VSOCK,
            "its configuration file, or the body of PUT /vsock",
            (f'"vsock": {json.dumps(vsock)}',),
        ),
    ]


RECIPES: dict[str, Callable[[Place], list[Recipe]]] = {
    "qemu": _qemu,
    "libvirt": _libvirt,
    "cloud-hypervisor": _cloud_hypervisor,
    "firecracker": _firecracker,
}

SOCKET_UNIT = """\
[Unit]
Description=SSH on vsock

[Socket]
ListenStream=vsock::22
Accept=yes

[Install]
WantedBy=sockets.target
"""
SERVICE_UNIT = """\
[Unit]
Description=SSH on vsock, one connection

[Service]
ExecStart=-/usr/sbin/sshd -i
StandardInput=socket
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
"""


def guest_recipes() -> list[Recipe]:
    """Return what is to be done in guests."""
    return [
        Recipe(
            Part.SSH,
            "in the guest, systemd 256 and later (Debian 13, Fedora 41, Ubuntu 24.10)",
            ("apt install openssh-server || dnf install openssh-server",),
            "nothing more: systemd-ssh-generator lets it listen on vsock from the next boot on",
        ),
        Recipe(
            Part.SSH,
            "/etc/systemd/system/sshd-vsock.socket in the guest, systemd before 256",
            tuple(SOCKET_UNIT.splitlines()),
        ),
        Recipe(
            Part.SSH,
            "/etc/systemd/system/sshd-vsock@.service in the guest, beside it",
            tuple(SERVICE_UNIT.splitlines()),
            "then: systemctl enable --now sshd-vsock.socket",
        ),
        Recipe(
            Part.SSH,
            "in a guest without systemd",
            ('socat VSOCK-LISTEN:22,fork EXEC:"/usr/sbin/sshd -i",nofork',),
        ),
        Recipe(
            Part.AGENT,
            "in the guest",
            ("apt install qemu-guest-agent || dnf install qemu-guest-agent",),
            "where SELinux is, as on Fedora: setsebool -P virt_qemu_ga_manage_ssh on",
        ),
    ]
