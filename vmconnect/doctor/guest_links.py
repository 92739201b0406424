"""The links from a machine to a command in its guest."""

from __future__ import annotations

import textwrap

from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, broken, fine, skipped, warn
from vmconnect.doctor.patient import Patient
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    DeadlineError,
    TrustError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.hypervisor.vsock_state import VsockState
from vmconnect.session import hypervisor_of
from vmconnect.session.recipes import SERVICE_UNIT, SOCKET_UNIT
from vmconnect.session.trust import HostKey
from vmconnect.streams import HybridVsock, ThroughSsh, Unix, Vsock, dial

__all__ = [
    "try_guest_driver",
    "try_guest_port",
    "try_host_key",
    "try_login",
    "try_shell",
    "try_ssh_server",
    "try_vsock_device",
]

_COMMAND_SECONDS = 10.0
_OUTPUT_CHARACTERS = 200

_DEVICES = {
    "qemu": "start QEMU with one: -device vhost-vsock-pci,guest-cid=3 where the host has "
    "vhost_vsock; without it, no root needed, vmconnect vsock-device --help tells how",
    "libvirt": "give the domain one, with virsh edit: <vsock><cid auto='yes'/></vsock>",
    "cloud-hypervisor": "start it with --vsock cid=3,socket=/PATH",
    "firecracker": "configure one before the start: PUT /vsock {guest_cid, uds_path}",
}
_PAUSED = "the machine is paused, and its guest cannot answer"
_NO_DRIVER = (
    "wait until the guest has started; in it: modprobe vmw_vsock_virtio_transport (a kernel with "
    "CONFIG_VIRTIO_VSOCKETS)"
)
LISTENER = f"""\
systemd 256 and later do it by themselves, where sshd is installed (Debian 13, Fedora 41, Ubuntu
24.10); in an older guest write /etc/systemd/system/sshd-vsock.socket

{textwrap.indent(SOCKET_UNIT, "    ")}
and /etc/systemd/system/sshd-vsock@.service

{textwrap.indent(SERVICE_UNIT, "    ")}
then: systemctl enable --now sshd-vsock.socket"""


def try_vsock_device(patient: Patient, deadline: Deadline) -> Verdict:
    """Look whether the machine has a vsock device that can be reached, and where."""
    machine = patient.machine
    match machine.guest:
        case None:
            return _no_device(machine, deadline)
        case HybridVsock(path) as endpoint:
            # Whoever serves the device listens there, whatever becomes of the guest.
            dial(Unix(path), deadline).close()
            return fine(f"{endpoint}")
        case ThroughSsh(host, HybridVsock(path)) as endpoint:
            dial(ThroughSsh(host, Unix(path)), deadline).close()
            return fine(f"{endpoint}")
        case Vsock() as endpoint:
            return fine(f"{endpoint}, by this host's kernel")
        case endpoint:
            return fine(f"{endpoint}")


def _no_device(machine: Machine, deadline: Deadline) -> Verdict:
    if machine.hypervisor is None:
        return skipped("the address is a display's, not a guest's", blocks=True)
    if _vsock_state(machine, deadline) not in {None, VsockState.NO_DEVICE}:
        return broken(
            "QEMU has a vsock device, and nothing tells where its socket is",
            f"let it be beside the monitor, as {machine.name}.vsock",
        )
    return broken("it has no vsock device that is known here", _DEVICES.get(machine.hypervisor))


def try_guest_driver(patient: Patient, deadline: Deadline) -> Verdict:
    """Ask the hypervisor whether the guest has taken its vsock device."""
    machine = patient.machine
    if machine.hypervisor is None:
        return skipped("an address tells of no hypervisor that could be asked")
    match _vsock_state(machine, deadline):
        case VsockState.UP:
            return fine("the guest's driver is up")
        case VsockState.NO_DRIVER if machine.state is PowerState.PAUSED:
            return skipped(_PAUSED, blocks=True)
        case VsockState.NO_DRIVER:
            return broken("the guest has no driver on its vsock device", _NO_DRIVER)
        case VsockState.NO_DEVICE:
            return broken("the machine has no vsock device", _DEVICES.get(machine.hypervisor))
        case _:
            return skipped("this hypervisor does not tell")


def try_guest_port(patient: Patient, deadline: Deadline) -> Verdict:
    """Dial port 22 of the guest's vsock."""
    machine = patient.machine
    if machine.state is PowerState.PAUSED:
        return skipped(_PAUSED, blocks=True)
    assert machine.guest is not None  # noqa: S101 (the device is there)
    try:
        dial(machine.guest, deadline).close()
    except ConnectError as error:
        return broken(error.message, LISTENER if "nothing listens" in error.message else error.hint)
    except DeadlineError as error:
        return broken(
            f"{error.message}: the guest does not answer at all",
            "is it still starting, or does it hang? vmconnect console shows its screen",
        )
    return fine(f"somebody listens at {machine.guest}")


def try_ssh_server(patient: Patient, deadline: Deadline) -> Verdict:
    """Log in as vmconnect exec does, and see whether an SSH server speaks."""
    outcome = patient.guest(deadline)
    if not isinstance(outcome, VmconnectError):
        return fine(f"it greets with {outcome.greeting}")
    if isinstance(outcome, AuthenticationError | TrustError):
        return fine("it greets")
    return broken(outcome.message, outcome.hint or "in the guest: is sshd installed, and well?")


def try_host_key(patient: Patient, deadline: Deadline) -> Verdict:
    """See whether the guest's host key is the one that is pinned to the machine."""
    outcome = patient.guest(deadline)
    if isinstance(outcome, TrustError):
        return broken(outcome.message, outcome.hint)
    machine = patient.machine
    if HostKey.from_line(machine.note.host_key or ""):
        return fine("it is the one that whoever started the machine wrote down")
    return fine(f"it is the one that is pinned to {machine.identity}")


def try_login(patient: Patient, deadline: Deadline) -> Verdict:
    """See whether the guest lets us in."""
    outcome = patient.guest(deadline)
    if not isinstance(outcome, VmconnectError):
        return fine(f"as {outcome.login.user} by {outcome.method}")
    account = outcome.message
    if isinstance(outcome, AuthenticationError) and outcome.offered:
        account += f"; the server offers {', '.join(outcome.offered)}"
    return broken(account, outcome.hint)


def try_shell(patient: Patient, deadline: Deadline) -> Verdict:
    """Run true in the guest."""
    guest = patient.guest(deadline)
    if isinstance(guest, VmconnectError):
        raise guest
    result = guest.run(["true"], timeout=deadline.sooner(_COMMAND_SECONDS))
    if result.ok:
        noise = result.stdout or result.stderr
        if noise:
            return warn(
                "it writes what no command has written: " + _first_line(noise),
                "in the guest: let the shell's start-up files be silent where there is no terminal",
            )
        return fine(f"true ran in {result.seconds * 1000:.0f} ms")
    ended = f"SIG{result.signal}" if result.signal else f"exit code {result.exit_code}"
    said = _first_line(result.stderr or result.stdout)
    user = guest.login.user
    return broken(
        f"true ends with {ended}{f', saying {said}' if said else ''}",
        f"in the guest: look at the login shell of {user} (getent passwd {user}), at its "
        "start-up files and at ForceCommand of sshd",
    )


def _first_line(data: bytes) -> str:
    line = data.decode("utf-8", "replace").strip().partition("\n")[0]
    return repr(line[:_OUTPUT_CHARACTERS]) if line else ""


def _vsock_state(machine: Machine, deadline: Deadline) -> VsockState | None:
    with hypervisor_of(machine) as hypervisor:
        return hypervisor.vsock_state(machine, deadline)
