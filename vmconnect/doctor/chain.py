"""The chain from a target to a picture, and to a command in the guest: its links in one table."""

from __future__ import annotations

from vmconnect.doctor import console_links, guest_links, machine_links
from vmconnect.doctor.check import Check
from vmconnect.doctor.patient import Patient

__all__ = ["CHAIN"]

CHAIN: tuple[Check[Patient], ...] = (
    Check("target", (), "read", machine_links.try_target),
    Check(
        "hypervisor",
        ("target",),
        "asked for the machine, as by vmconnect list",
        machine_links.try_hypervisor,
        8.0,
        "look at the hypervisor's process, and at its log",
    ),
    Check(
        "power",
        ("hypervisor",),
        "its state, as it told",
        machine_links.try_power,
        remedy="look at its screen, if it has one: vmconnect console",
    ),
    Check("display", ("power",), "what it told of VNC", console_links.try_display),
    Check(
        "VNC server",
        ("display",),
        "attached to, as by vmconnect console",
        console_links.try_vnc_server,
        10.0,
        "is this the right address, and is its server well?",
    ),
    Check(
        "VNC login",
        ("VNC server",),
        "what came of it",
        console_links.try_vnc_login,
        remedy="look at the VNC server's log, which knows why",
    ),
    Check(
        "picture",
        ("VNC login",),
        "waited for, and looked at",
        console_links.try_picture,
        10.0,
        "the server lets us in and shows nothing: look at its log",
    ),
    Check(
        "vsock device",
        ("power",),
        "what it told of vsock, and who serves it",
        guest_links.try_vsock_device,
        remedy="is whatever serves it running? vmconnect vsock-device --help tells of ours",
    ),
    Check(
        "guest driver",
        ("vsock device",),
        "asked for, of the hypervisor",
        guest_links.try_guest_driver,
    ),
    Check(
        "guest port",
        ("guest driver",),
        "port 22 dialled",
        guest_links.try_guest_port,
        remedy="look at the guest's screen: vmconnect console",
    ),
    Check(
        "SSH server",
        ("guest port",),
        "logged in to, as by vmconnect exec",
        guest_links.try_ssh_server,
        20.0,
        "in the guest: is it sshd that listens there? /usr/sbin/sshd -t, journalctl -t sshd",
    ),
    Check(
        "host key",
        ("SSH server",),
        "compared with the pinned one",
        guest_links.try_host_key,
        remedy="compare it with the guest's: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key",
    ),
    Check(
        "login",
        ("host key",),
        "what came of it",
        guest_links.try_login,
        remedy="name another user with -l or a key with -i",
    ),
    Check(
        "shell",
        ("login",),
        "true run by it",
        guest_links.try_shell,
        15.0,
        "look at the guest's screen: vmconnect console",
    ),
)
