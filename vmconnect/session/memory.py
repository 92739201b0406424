"""Machines that were found before, for a long-lived process that is asked for them again."""

from __future__ import annotations

import time

from vmconnect.deadline import Deadline
from vmconnect.hypervisor import Machine
from vmconnect.mark import Mark
from vmconnect.session.places import hypervisors
from vmconnect.session.resolve import hypervisor_of, resolve
from vmconnect.session.target import NamedTarget, SocketTarget, Target

__all__ = ["MachineMemory"]

_MOST_MACHINES = 1024
# What a file's times can be off, being counted in the kernel's ticks.
_TICK_NS = 50_000_000


class MachineMemory:
    """Resolves targets, and asks no hypervisor where nothing can have changed.

    What is remembered is worth no more than its hypervisor's `Hypervisor.mark`. Where there is
    none, or several hypervisors might know the name, every target is resolved anew. Usable from
    any thread.
    """

    def __init__(self) -> None:
        self._found: dict[Target, tuple[Machine, Mark]] = {}

    def resolve(
        self, target: Target, timeout: Deadline | float | None = 10.0
    ) -> tuple[Machine, bool]:
        """Return the machine as `resolve` does, and whether it is only remembered."""
        known = self._found.get(target)
        if known is not None and _mark(target, known[0]) == known[1]:
            return known[0], True
        before = time.time_ns()
        machine = resolve(target, timeout)
        mark = _mark(target, machine)
        # What has changed meanwhile may have done so after it was asked.
        if mark is not None and mark.changed_ns + _TICK_NS < before:
            if len(self._found) >= _MOST_MACHINES:
                self._found.clear()
            self._found[target] = machine, mark
        return machine, False

    def forget(self, target: Target) -> None:
        """Have the target resolved anew the next time."""
        self._found.pop(target, None)


def _mark(target: Target, machine: Machine) -> Mark | None:
    if isinstance(target, SocketTarget):
        with hypervisor_of(machine) as hypervisor:
            return hypervisor.mark(machine)
    if isinstance(target, NamedTarget):
        asked = hypervisors()
        if len(asked) == 1:
            return asked[0].mark(machine, target.name)
    return None
