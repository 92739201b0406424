"""What this host needs, and what it would be better with: its checks in one table.

The kernel's vsock is looked at, and never dialled.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.doctor.broker import try_broker
from vmconnect.doctor.check import Check, Verdict, broken, fine, skipped, warn
from vmconnect.doctor.places import try_libvirt, try_machines
from vmconnect.doctor.rooms import try_journal, try_runtime, try_settings, try_state

__all__ = ["HOST", "Host"]

_LEAST_PYTHON = (3, 11)
_QEMU = "qemu-system-x86_64"
_EXTRAS = {
    "window": ("pygame-ce", 2, "no console window"),
    "video": ("av", 18, "no videos of recordings, no H.264"),
    "libvirt": ("libvirt-python", 9, "no libvirt machines"),
}
_GROUPS = ("kvm", "libvirt")


class Host:
    """This host; what is looked at lies below ``root``."""

    def __init__(self, root: Path = Path("/")):
        self.root = root

    def path(self, text: str) -> Path:
        """Return where a file of the system is."""
        return self.root / text.lstrip("/")

    def module_loaded(self, name: str) -> bool:
        """Return whether a module of the kernel's is loaded, or built in."""
        with contextlib.suppress(OSError):
            lines = self.path("/proc/modules").read_text(encoding="ascii").splitlines()
            if any(line.split()[:1] == [name] for line in lines):
                return True
        return self.path(f"/sys/module/{name}").is_dir()


def try_python(host: Host, deadline: Deadline) -> Verdict:
    """Look at the interpreter."""
    del host, deadline
    running = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _LEAST_PYTHON:
        return broken(f"Python {running} is too old", "install Python 3.11 or later")
    return fine(f"{running}, {sys.executable}")


def try_kernel(host: Host, deadline: Deadline) -> Verdict:
    """Look for the compiled part of the console's decoders."""
    del host, deadline
    if find_spec("vmconnect.vnc._kernel") is None:
        return warn(
            "not compiled: numpy decodes, up to a hundred times as slowly",
            "apt install gcc python3-dev, and install vmconnect again",
        )
    return fine("compiled")


def try_extras(host: Host, deadline: Deadline) -> Verdict:
    """Look for the packages that are not always installed."""
    del host, deadline
    there, missing = [], {}
    for extra, (package, least, without) in _EXTRAS.items():
        try:
            found = version(package)
            old = int(found.partition(".")[0]) < least
        except (PackageNotFoundError, ValueError):
            found, old = "", True
        if old:
            missing[extra] = (
                f"{package} {f'{found} is too old' if found else 'is missing'}: {without}"
            )
        else:
            there.append(f"{package} {found}")
    if missing:
        return warn("; ".join(missing.values()), f"pip install 'vmconnect[{','.join(missing)}]'")
    return fine(", ".join(there))


def try_desktop(host: Host, deadline: Deadline) -> Verdict:
    """Look whether there is a display for a window."""
    del host, deadline
    for name in ("WAYLAND_DISPLAY", "DISPLAY"):
        if value := os.environ.get(name):
            return fine(f"{name} is {value}")
    return warn(
        "there is no display to open a window on: vmconnect console cannot",
        "set DISPLAY, or use vmconnect screenshot",
    )


def try_qemu(host: Host, deadline: Deadline) -> Verdict:
    """Start it for its version."""
    del host
    path = shutil.which(_QEMU)
    if path is None:
        return warn(f"{_QEMU} is not installed: no vmconnect demo", "apt install qemu-system-x86")
    try:
        told = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline.remaining(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return broken(f"{path} does not start: {error}", "apt install --reinstall qemu-system-x86")
    line = (told.stdout or told.stderr).strip().partition("\n")[0]
    if told.returncode:
        return broken(f"{path} does not start: {line}", "apt install --reinstall qemu-system-x86")
    return fine(line)


def try_kvm(host: Host, deadline: Deadline) -> Verdict:
    """Look whether guests can run on the processor itself."""
    del deadline
    device = host.path("/dev/kvm")
    emulated = "guests are emulated, many times as slowly"
    try:
        flags = set(host.path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        flags = set()
    if flags and not flags & {"vmx", "svm"}:
        return warn(
            f"the processor offers no virtualisation (vmx, svm): {emulated}",
            "turn it on in the firmware, or, in a virtual machine, let that have nested "
            "virtualisation",
        )
    if not device.exists():
        return warn(f"there is no /dev/kvm: {emulated}", "modprobe kvm_intel, or kvm_amd")
    if not os.access(device, os.R_OK | os.W_OK):
        return warn(f"you may not use /dev/kvm: {emulated}", _group_remedy(device, "kvm"))
    return fine("usable")


def try_vhost_vsock(host: Host, deadline: Deadline) -> Verdict:
    """Look at the kernel's vsock device; nothing is dialled."""
    del deadline
    device = host.path("/dev/vhost-vsock")
    instead = "vmconnect vsock-device serves one without it, and without root"
    if not device.exists():
        loaded = host.module_loaded("vhost_vsock")
        why = "its module is loaded, and has none" if loaded else "its module is not loaded"
        return warn(f"there is no /dev/vhost-vsock: {why}", f"modprobe vhost_vsock; or: {instead}")
    if not os.access(device, os.R_OK | os.W_OK):
        return warn("you may not use /dev/vhost-vsock", _group_remedy(device, "kvm"))
    return fine("usable")


def try_groups(host: Host, deadline: Deadline) -> Verdict:
    """Compare the groups that this process has with those that its user is in."""
    del deadline
    if os.geteuid() == 0:
        return skipped("root needs none")
    groups, user = _groups(host), _user()
    mine = {*os.getgroups(), os.getegid()}
    late = [name for name, (number, members) in groups.items()
            if number not in mine and user in members]  # fmt: skip
    if late:
        return warn(
            f"you have joined {', '.join(late)} since you logged in",
            f"log in anew, or start a shell with: newgrp {late[0]}",
        )
    lacking = [name for name, (number, _) in groups.items() if number not in mine]
    if lacking:
        return warn(
            f"you are not in {', '.join(lacking)}", f"usermod -aG {','.join(lacking)} {user}"
        )
    return fine(f"you are in {', '.join(groups)}") if groups else skipped("this host has none")


def _groups(host: Host) -> dict[str, tuple[int, list[str]]]:
    """Return the groups that matter: their numbers and members, as far as the file tells."""
    found = {}
    with contextlib.suppress(OSError, ValueError):
        for line in host.path("/etc/group").read_text(encoding="utf-8").splitlines():
            name, _, number, members = line.split(":", 3)
            if name in _GROUPS:
                found[name] = (int(number), members.split(","))
    return found


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _group_remedy(device: Path, usual: str) -> str:
    from vmconnect.streams.permission import permission_hint

    hint = permission_hint(device, str(device))
    if "to the group" in hint:
        return hint
    return f"{hint}; usually the group {usual} may: chgrp {usual} {device}, chmod 660 {device}"


HOST: tuple[Check[Host], ...] = (
    Check("Python", (), "its version", try_python),
    Check("decoders", (), "looked for", try_kernel),
    Check("extras", (), "looked for", try_extras),
    Check("desktop", (), "looked for in the environment", try_desktop),
    Check("runtime directory", (), "made, if need be", try_runtime),
    Check("state directory", (), "looked at", try_state),
    Check("settings", (), "read", try_settings),
    Check("broker", ("runtime directory",), "asked what it keeps open", try_broker, 10.0),
    Check("journal", ("state directory", "settings"), "looked at", try_journal),
    Check("QEMU", (), "started for its version", try_qemu, 10.0),
    Check("KVM", (), "looked at", try_kvm),
    Check("vhost-vsock", (), "looked at, and not dialled", try_vhost_vsock),
    Check("groups", (), "compared with those of the user", try_groups),
    Check("libvirt", (), "asked for its machines", try_libvirt, 10.0),
    Check("machines", ("runtime directory",), "all hypervisors asked", try_machines, 10.0),
)
