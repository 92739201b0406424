"""The links from a target to a machine that runs."""

from __future__ import annotations

from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, broken, fine, skipped, warn
from vmconnect.doctor.patient import Patient
from vmconnect.doctor.processes import clients_of, listener_at
from vmconnect.errors import DeadlineError, MachineNotFoundError, VmconnectError
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.hypervisor.lookup import is_pattern
from vmconnect.hypervisor.sockets import may_be
from vmconnect.session import Session, hypervisor_of, resolve
from vmconnect.session.places import socket_directories
from vmconnect.session.target import (
    AddressTarget,
    FileTarget,
    LibvirtTarget,
    NamedTarget,
    SocketTarget,
    parse_target,
)
from vmconnect.terminal import asking_nobody

__all__ = ["try_hypervisor", "try_power", "try_target"]

_SUFFIXES = {"qmp": "qemu", "ch": "ch", "fc": "fc"}
_KINDS = {"qemu": "QEMU", "ch": "Cloud Hypervisor", "fc": "Firecracker"}


def try_target(patient: Patient, deadline: Deadline) -> Verdict:
    """Read what was typed."""
    del deadline
    match patient.target:
        case NamedTarget(name) if is_pattern(name):
            return fine("a pattern of names")
        case NamedTarget():
            return fine("a machine's name or UUID")
        case SocketTarget(kind, path, host=host):
            return fine(f"the {_KINDS[kind]} behind {path}{f' on {host}' if host else ''}")
        case LibvirtTarget(address=address, name=name):
            return fine(f"{name} of {address.uri}")
        case AddressTarget(console=console, guest=guest):
            return fine(f"a bare address, {console or guest}")
        case FileTarget(path):
            return fine(f"the connection file {path}")


def try_hypervisor(patient: Patient, deadline: Deadline) -> Verdict:
    """Find the machine, and hear of it from its hypervisor."""
    target = patient.target
    try:
        with asking_nobody():
            patient.session = Session(resolve(target, deadline))
    except MachineNotFoundError as error:
        return _left_behind(target, deadline) or _nowhere(target, error)
    except VmconnectError as error:
        return _refused(target, error)
    machine = patient.machine
    if machine.hypervisor is None:
        return skipped("an address tells of no hypervisor that could be asked")
    if machine.trouble:
        # It was found by its socket's name, and has not told of itself.
        return _unheard(machine, deadline)
    words = [f"{machine.hypervisor} answers", machine.target]
    return fine(", ".join([*words, machine.uuid] if machine.uuid else words))


def try_power(patient: Patient, deadline: Deadline) -> Verdict:
    """Look whether the machine runs."""
    del deadline
    machine = patient.machine
    if machine.hypervisor is None:
        return skipped("nobody tells whether it runs")
    command = f"vmconnect power {machine.name}"
    match machine.state:
        case PowerState.RUNNING:
            return fine("it runs")
        case PowerState.PAUSED:
            return warn("it is paused: its screen stands still, its guest does not answer",
                        f"{command} resume")  # fmt: skip
        case PowerState.OFF:
            return broken("it is off", f"{command} on")
        case PowerState.SAVED:
            return broken("it is off, and its state is saved", f"{command} on")
        case PowerState.CRASHED:
            return broken("its guest has crashed", f"{command} reset")
        case PowerState.UNKNOWN:
            return warn("its hypervisor does not tell whether it runs")


def _unheard(machine: Machine, deadline: Deadline) -> Verdict:
    """Say why a machine that is there does not tell of itself."""
    target = parse_target(machine.target)
    try:
        with hypervisor_of(machine) as hypervisor:
            hypervisor.refresh(machine, deadline)
    except VmconnectError as error:
        return _refused(target, error)
    return warn(f"it did not answer at first: {machine.trouble}", "try again")


def _refused(target: object, error: VmconnectError) -> Verdict:
    """Say what is wrong with a hypervisor that is there."""
    if not isinstance(target, SocketTarget) or not isinstance(error, DeadlineError):
        return broken(error.message, error.hint)
    kind, path = _KINDS[target.kind], target.path
    if target.host:  # Its processes are not to be seen from here.
        where = f"{path} on {target.host}"
        return broken(f"{kind} does not answer at {where}: it hangs, or is busy", error.hint)
    listener = listener_at(path)
    if listener is not None and listener.trouble:
        return broken(
            f"{kind} does not answer: {listener} {listener.trouble}",
            f"kill -CONT {listener.pid}" if listener.stopped else "look at what it waits for",
        )
    others = [each for each in clients_of(path) if listener is None or each.pid != listener.pid]
    if others and target.kind == "qemu":
        held = ", ".join(map(str, others))
        return broken(
            f"the monitor {path} is busy: {held} has it, and QEMU serves one client at a time",
            "end that, or give QEMU a second monitor: -qmp unix:OTHER.qmp,server=on,wait=off",
        )
    who = f"{listener} hangs" if listener else "it hangs"
    return broken(f"{kind} does not answer at {path}: {who}, or is busy", error.hint)


def _left_behind(target: object, deadline: Deadline) -> Verdict | None:
    """Look for what a machine of that name has left behind, and say what is wrong with it."""
    if not isinstance(target, NamedTarget) or is_pattern(target.name):
        return None
    for directory in socket_directories():
        for suffix, kind in _SUFFIXES.items():
            path = directory / f"{target.name}.{suffix}"
            if not may_be(path):
                continue
            found = SocketTarget(kind, str(path))
            try:
                resolve(found, deadline)
            except VmconnectError as error:
                verdict = _refused(found, error)
                return broken(verdict.account, verdict.remedy or "is the machine started?")
    return None


def _nowhere(target: object, error: VmconnectError) -> Verdict:
    """Say what would make a machine of that name known."""
    remedy = error.hint
    if isinstance(target, NamedTarget) and not is_pattern(target.name):
        directories = socket_directories()
        if directories:
            path = Path(directories[0], f"{target.name}.qmp")
            start = f"start QEMU with -qmp unix:{path},server=on,wait=off"
            remedy = f"{remedy}; or {start}" if remedy else start
    return broken(error.message, remedy)
