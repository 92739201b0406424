"""From a target to the one machine it means."""

from __future__ import annotations

from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import AmbiguousTargetError, MachineNotFoundError
from vmconnect.hypervisor import Hypervisor, Machine, Qemu
from vmconnect.paths import runtime_directory
from vmconnect.session.target import AddressTarget, NamedTarget, QemuTarget, Target

__all__ = ["hypervisors", "list_machines", "resolve"]


def hypervisors() -> list[Hypervisor]:
    """Return every hypervisor that is looked at when a machine is only named."""
    return [Qemu(runtime_directory())]


def list_machines(timeout: Deadline | float | None = 10.0) -> list[Machine]:
    """Return the machines of all hypervisors known here."""
    deadline = Deadline.of(timeout)
    return [machine for each in hypervisors() for machine in each.machines(deadline)]


def resolve(target: Target, timeout: Deadline | float | None = 10.0) -> Machine:
    """Return the machine that ``target`` means.

    Raises MachineNotFoundError or AmbiguousTargetError, both with the candidates, and what the
    hypervisor raises when it does not answer.
    """
    deadline = Deadline.of(timeout)
    match target:
        case AddressTarget():
            return Machine(
                name=str(target),
                identity=str(target),
                target=str(target),
                console=target.console,
                guest=target.guest,
            )
        case QemuTarget(path):
            return Qemu(Path(path).parent).inspect(Path(path), deadline)
        case NamedTarget(name):
            found = [machine for each in hypervisors() for machine in each.look_up(name, deadline)]
    if len(found) == 1:
        return found[0]
    if found:
        raise AmbiguousTargetError(
            f"{len(found)} machines are called {name!r}",
            hint="say which: " + ", ".join(machine.target for machine in found),
        )
    import difflib  # Only a mistyped name needs it.

    known = [machine.name for machine in list_machines(deadline)]
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or sorted(known)[:10]
    raise MachineNotFoundError(
        f"no machine is called {name!r}",
        hint="known: " + ", ".join(near) if near else "none is running here: vmconnect demo",
    )
