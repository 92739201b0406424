"""Which machines are meant: by several targets, patterns and groups, or all there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vmconnect.deadline import Deadline
from vmconnect.errors import MachineNotFoundError, VmconnectError
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.hypervisor.lookup import is_pattern, matching
from vmconnect.session.groups import expanded
from vmconnect.session.inventory import take_inventory
from vmconnect.session.resolve import resolve_all
from vmconnect.session.target import NamedTarget, Target, parse_target

__all__ = ["Selection", "select"]

_NOT_RUNNING = frozenset({PowerState.OFF, PowerState.SAVED, PowerState.CRASHED})


@dataclass(frozen=True, slots=True)
class Selection:
    """Machines, each once, in the order in which they were named.

    ``errors`` are those of targets that led to none; ``machine`` in each is the target. ``skipped``
    are machines that were not named, and that have no way in: they are off, or have no vsock.
    """

    machines: tuple[Machine, ...]
    errors: tuple[VmconnectError, ...] = ()
    skipped: tuple[Machine, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What each is called among the others, by its ``target``: its name where it can be."""
        bearers = Counter(machine.name for machine in self.machines)
        return {
            each.target: each.name if bearers[each.name] == 1 else each.target
            for each in self.machines
        }


def select(
    texts: Sequence[str] = (),
    *,
    everything: bool = False,
    without: Sequence[str] = (),
    timeout: Deadline | float | None = 10.0,
) -> Selection:
    """Return the machines that ``texts`` mean: targets, patterns, and groups as ``@web``.

    ``everything`` adds all machines that run here and have a guest to be reached. Those that
    ``without`` means, likewise, are left out. A target that leads to no machine is among the
    selection's errors, and keeps nobody from the others.

    Raises TargetError for what is no target or no group, MachineNotFoundError where nothing is
    left or ``without`` means nothing, ResourceError for a groups file that cannot be read.
    """
    deadline = Deadline.of(timeout)
    wanted = [parse_target(text) for text in expanded(tuple(texts))]
    unwanted = [parse_target(text) for text in expanded(tuple(without))]
    named = sum(isinstance(each, NamedTarget) for each in (*wanted, *unwanted))
    # One look at everything, rather than one for each name.
    known: list[Machine] | None = None
    errors: list[VmconnectError] = []
    if everything or named > 1:
        inventory = take_inventory(deadline)
        known = list(inventory.machines)
        if everything:
            errors += inventory.errors
    chosen = list(_found(wanted, known, deadline, errors))
    skipped: list[Machine] = []
    if everything:
        for machine in known or ():
            reachable = machine.guest is not None and machine.state not in _NOT_RUNNING
            (chosen if reachable else skipped).append(machine)
    misses: list[VmconnectError] = []
    out = {each.target for each in _found(unwanted, known, deadline, misses)}
    if misses:
        raise misses[0]  # It might be one of those that remain.
    machines = {each.target: each for each in chosen if each.target not in out}
    if not machines:
        if errors:
            raise errors[0]
        raise MachineNotFoundError("no machine is meant", hint="vmconnect list shows those here")
    left = (each for each in skipped if each.target not in out | machines.keys())
    return Selection(tuple(machines.values()), tuple(errors), tuple(left))


def _found(
    targets: Iterable[Target],
    known: list[Machine] | None,
    deadline: Deadline,
    errors: list[VmconnectError],
) -> Iterator[Machine]:
    """Give the machines that targets mean, and note the errors of those that mean none."""
    for target in targets:
        if known is not None and isinstance(target, NamedTarget):
            found = matching(known, target.name)
            if len(found) == 1 or (found and is_pattern(target.name)):
                yield from found
                continue
        try:
            yield from resolve_all(target, deadline)
        except VmconnectError as error:
            errors.append(error.with_machine(str(target)))
