"""The links from a machine to its picture."""

from __future__ import annotations

from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, broken, fine, skipped, warn
from vmconnect.doctor.patient import Patient
from vmconnect.doctor.processes import listener_at
from vmconnect.errors import (
    AuthenticationError,
    DeadlineError,
    NoCredentialsError,
    TrustError,
    VmconnectError,
)
from vmconnect.hypervisor import Capability, Machine
from vmconnect.session import hypervisor_of
from vmconnect.streams import Unix

__all__ = ["try_display", "try_picture", "try_vnc_login", "try_vnc_server"]

_REMEDIES = {
    "qemu": "start QEMU with a display: -vnc unix:/PATH, or -vnc none (it is handed over then)",
    "libvirt": "give the domain one, with virsh edit: <graphics type='vnc' socket='/PATH'/>",
}
# What QEMU draws where no guest does (ui/console.c), as far as its font is ours.
_PLACEHOLDERS = {
    "not initialized the display": (
        "the guest has not turned its display on",
        "wait until it has started; or give it a display that its firmware knows: -vga std",
    ),
    "output is not active": (
        "the guest has turned its display off",
        "wake it with a key: vmconnect keys {name} shift",
    ),
    "no graphic display": (
        "the machine has no graphics adapter",
        "start QEMU with one: -vga std",
    ),
}


def try_display(patient: Patient, deadline: Deadline) -> Verdict:
    """Look whether the machine has a VNC display, and where."""
    del deadline
    machine = patient.machine
    if machine.console is not None:
        return fine(f"VNC at {machine.console}")
    if machine.handed_console:
        return fine("VNC, handed over by the hypervisor")
    if machine.hypervisor is None:
        return skipped("the address is a guest's, not a display's", blocks=True)
    if not _has_displays(machine):
        return skipped(f"{machine.hypervisor} has no displays", blocks=True)
    return broken("it has no VNC display", _REMEDIES.get(machine.hypervisor))


def try_vnc_server(patient: Patient, deadline: Deadline) -> Verdict:
    """Attach as vmconnect console does, and see whether a VNC server speaks."""
    outcome = patient.console(deadline)
    if not isinstance(outcome, VmconnectError):
        return fine(f"it greets, and calls itself {outcome.desktop_name!r}")
    if isinstance(outcome, AuthenticationError | TrustError):
        return fine("it greets")
    endpoint = patient.machine.console
    if isinstance(outcome, DeadlineError) and isinstance(endpoint, Unix):
        listener = listener_at(endpoint.path)
        if listener is not None and listener.trouble:
            return broken(
                f"it does not answer: {listener} {listener.trouble}",
                f"kill -CONT {listener.pid}" if listener.stopped else None,
            )
    return broken(outcome.message, outcome.hint)


def try_vnc_login(patient: Patient, deadline: Deadline) -> Verdict:
    """See whether the VNC server lets us in."""
    outcome = patient.console(deadline)
    if not isinstance(outcome, VmconnectError):
        return fine(f"login {outcome.login}{', encrypted' if outcome.encrypted else ''}")
    account = outcome.message
    if isinstance(outcome, AuthenticationError) and outcome.offered:
        account += f"; it offers {', '.join(outcome.offered)}"
    if isinstance(outcome, NoCredentialsError):
        return warn(
            f"{account}: vmconnect console would ask for it",
            "to try it too, give it: --password-file FILE, or $VNC_PASSWORD",
            blocks=True,
        )
    return broken(account, outcome.hint)


def try_picture(patient: Patient, deadline: Deadline) -> Verdict:
    """Wait for the whole screen, and look at it."""
    console = patient.console(deadline)
    if isinstance(console, VmconnectError):
        raise console
    pixels = console.pixels(deadline)
    height, width = pixels.shape
    size = f"{width}x{height}"
    lines = console.text(deadline) or []
    for words, (account, remedy) in _PLACEHOLDERS.items():
        if any(words in line for line in lines):
            return warn(f"{size}: {account}", remedy.format(name=patient.machine.name))
    if not (pixels & 0xFFFFFF).any():
        return warn(
            f"{size}, and all of it black: the guest's screen may sleep",
            f"wake it with a key: vmconnect keys {patient.machine.name} shift",
        )
    return fine(f"{size}, a text screen" if lines else size)


def _has_displays(machine: Machine) -> bool:
    with hypervisor_of(machine) as hypervisor:
        return Capability.CONSOLE in hypervisor.capabilities
