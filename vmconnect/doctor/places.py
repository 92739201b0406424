"""Checks of the hypervisors of this host."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.doctor.check import Verdict, broken, fine, skipped, warn
from vmconnect.errors import MissingDependencyError, VmconnectError
from vmconnect.hypervisor.sockets import libvirt_sockets, may_be
from vmconnect.session import take_inventory

__all__ = ["try_libvirt", "try_machines"]

_SHOWN = 5


def try_libvirt(_host: object, deadline: Deadline) -> Verdict:
    """Ask the daemons that listen on this host."""
    paths = ["system"] if os.geteuid() == 0 else ["system", "session"]
    here = {path: socket for path in paths if (socket := _socket(path)) is not None}
    if not here:
        return skipped(f"no daemon listens in {libvirt_sockets('system')[0].parent}")
    from vmconnect.hypervisor import Libvirt, LibvirtAddress

    told, troubles = [], []
    for path, socket in here.items():
        address = LibvirtAddress(path)
        try:
            with Libvirt(address) as hypervisor:
                told.append(f"{address.uri}: {_count(len(hypervisor.machines(deadline)))}")
        except MissingDependencyError as error:
            return warn(f"{error.message}, and a daemon listens at {socket}", error.hint)
        except VmconnectError as error:
            troubles.append(error)
    if troubles:
        return broken("; ".join(each.message for each in troubles), troubles[0].hint)
    return fine("; ".join(told))


def try_machines(_host: object, deadline: Deadline) -> Verdict:
    """Ask all hypervisors for their machines."""
    inventory = take_inventory(deadline)
    if inventory.errors:
        first = inventory.errors[0]
        return broken("; ".join(each.message for each in inventory.errors), first.hint)
    troubled = [each.name for each in inventory.machines if each.trouble]
    if troubled:
        more = len(troubled) - _SHOWN
        names = ", ".join(troubled[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return warn(f"these do not answer: {names}", f"vmconnect doctor {troubled[0]}")
    kinds = Counter(machine.hypervisor for machine in inventory.machines)
    each = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items(), key=str))
    if not inventory.machines:
        return fine("none runs; vmconnect demo starts one")
    return fine(f"{_count(len(inventory.machines))} answer{'s' * (kinds.total() == 1)}: {each}")


def _count(number: int) -> str:
    return f"{number} machine{'s' * (number != 1)}"


def _socket(path: str) -> Path | None:
    return next((each for each in libvirt_sockets(path) if may_be(each)), None)
