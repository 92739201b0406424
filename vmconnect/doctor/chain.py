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
    ),
    Check("power", ("hypervisor",), "its state, as it told", machine_links.try_power),
    Check("display", ("power",), "what it told of VNC", console_links.try_display),
    Check(
        "VNC server", ("display",), "attached to, as by vmconnect console",
        console_links.try_vnc_server, 10.0,
    ),
    Check("VNC login", ("VNC server",), "what came of it", console_links.try_vnc_login),
    Check("picture", ("VNC login",), "waited for, and looked at", console_links.try_picture, 10.0),
    Check(
        "vsock device", ("power",), "what it told of vsock, and who serves it",
        guest_links.try_vsock_device,
    ),
    Check(
        "guest driver", ("vsock device",), "asked for, of the hypervisor",
        guest_links.try_guest_driver,
    ),
    Check("guest port", ("guest driver",), "port 22 dialled", guest_links.try_guest_port),
    Check(
        "SSH server", ("guest port",), "logged in to, as by vmconnect exec",
        guest_links.try_ssh_server, 20.0,
    ),
    Check("host key", ("SSH server",), "compared with the pinned one", guest_links.try_host_key),
    Check("login", ("host key",), "what came of it", guest_links.try_login),
    Check("shell", ("login",), "true run by it", guest_links.try_shell, 15.0),
)  # fmt: skip
