"""``vmconnect list``: the machines of every hypervisor that is known here."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable, say
from vmconnect.hypervisor import Machine
from vmconnect.session import take_inventory

if TYPE_CHECKING:
    from vmconnect.session.inventory_watch import Happened, InventoryWatch, Listed, Unwatched

__all__ = ["configure", "run"]

_COLUMNS = ("NAME", "STATE", "HYPERVISOR", "CONSOLE", "GUEST", "UUID")
_ADDRESSES = ("CONSOLE AT", "GUEST AT", "TARGET")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Machines are found by sockets in $XDG_RUNTIME_DIR/vmconnect (NAME.qmp of QEMU, NAME.ch of "
        "Cloud Hypervisor, NAME.fc of Firecracker) and in libvirt, system and session. "
        "$VMCONNECT_HYPERVISORS names other places: directories, and libvirt:// addresses. "
        "A QEMU machine announces itself by its monitor's socket: start it with -qmp "
        "unix:$XDG_RUNTIME_DIR/vmconnect/NAME.qmp,server=on,wait=off. The exit code is 1 when "
        "something could not be asked."
    )
    parser.add_argument("--long", action="store_true", help="show addresses too")
    parser.add_argument("--names", action="store_true", help="print names alone, one a line")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON array of objects; with --watch one object a line",
    )
    parser.add_argument(
        "--watch", action="store_true", help="go on, and print what happens to the machines"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=5.0,
        help="how long to wait for a hypervisor that does not answer (default: 5)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the machines and return the exit code."""
    if arguments.watch:
        from vmconnect.session.inventory_watch import InventoryWatch

        with InventoryWatch() as watch:
            return _follow(watch, arguments)
    inventory = take_inventory(arguments.timeout)
    if arguments.names:
        for machine in inventory.machines:
            print(printable(machine.name))  # noqa: T201
    elif arguments.json:
        objects = [_as_json(machine) for machine in inventory.machines]
        print(json.dumps(objects, indent=2))  # noqa: T201
    else:
        _print(inventory.machines, arguments.long)
    for error in inventory.errors:
        say(str(error))
    return 1 if _tell_troubles(inventory.machines) or inventory.errors else 0


def _tell_troubles(machines: Iterable[Machine]) -> bool:
    """Say which machines did not answer, and why; return whether there are any."""
    troubled = [machine for machine in machines if machine.trouble]
    for machine in troubled:
        say(f"{machine.name}: {machine.trouble}")
    return bool(troubled)


def _follow(watch: InventoryWatch, arguments: argparse.Namespace) -> int:
    """Print the machines that there are, and then what happens, until somebody stops us."""
    from vmconnect.errors import ClosedError
    from vmconnect.session.inventory_watch import Happened, Listed

    machines, news = _first(watch, arguments.timeout)
    _print_listed(sorted(machines, key=lambda each: (each.name, each.target)), arguments)
    while True:
        for each in news:
            if isinstance(each, Happened):
                _print_event(each, arguments.json)
            elif isinstance(each, Listed):
                _tell_troubles(each.machines)
                _print_listed(each.machines, arguments)
            else:
                say(str(each.error))
        try:
            news = [watch.next()]
        except ClosedError:
            return 0


def _first(
    watch: InventoryWatch, timeout: float
) -> tuple[list[Machine], list[Happened | Listed | Unwatched]]:
    """Return the machines of all hypervisors that answer in time, and what happened meanwhile."""
    from vmconnect.deadline import Deadline
    from vmconnect.errors import DeadlineError
    from vmconnect.session.inventory_watch import Happened, Listed

    deadline = Deadline(timeout)
    machines: list[Machine] = []
    meanwhile: list[Happened | Listed | Unwatched] = []
    waiting = watch.count
    while waiting:
        try:
            news = watch.next(deadline)
        except DeadlineError:
            break
        if isinstance(news, Listed):
            _tell_troubles(news.machines)
            machines += news.machines
        else:
            meanwhile.append(news)
        waiting -= not isinstance(news, Happened)
    return machines, meanwhile


def _print_listed(machines: Sequence[Machine], arguments: argparse.Namespace) -> None:
    if arguments.json:
        for machine in machines:
            print(json.dumps({"event": "listed", **_as_json(machine)}), flush=True)  # noqa: T201
    else:
        _print(machines, arguments.long)
        print(end="", flush=True)  # noqa: T201


def _print_event(happened: Happened, as_json: bool) -> None:
    event = happened.event
    if as_json:
        fields = {
            "event": event.kind.value,
            "name": event.name,
            "identity": event.identity,
            "hypervisor": happened.hypervisor,
        }
        print(json.dumps(fields), flush=True)  # noqa: T201
    else:
        clock = time.strftime("%H:%M:%S")
        print(f"{clock}  {printable(event.name)}  {event.kind.value}", flush=True)  # noqa: T201


def _print(machines: Iterable[Machine], long: bool) -> None:
    heads = (*_COLUMNS, *_ADDRESSES) if long else _COLUMNS
    print_table([heads, *((*_row(each), *(_addresses(each) if long else ())) for each in machines)])


def _row(machine: Machine) -> tuple[str, ...]:
    return (
        printable(machine.name),
        machine.state.value,
        machine.hypervisor or "-",
        "vnc" if machine.console or machine.handed_console else "-",
        "vsock" if machine.guest else "-",
        machine.uuid or "-",
    )


def _addresses(machine: Machine) -> tuple[str, ...]:
    return (
        printable(str(machine.console or "-")),
        printable(str(machine.guest or "-")),
        printable(machine.target),
    )


def _as_json(machine: Machine) -> dict[str, str | None]:
    return {
        "name": machine.name,
        "uuid": machine.uuid,
        "state": machine.state.value,
        "hypervisor": machine.hypervisor,
        "target": machine.target,
        "console": str(machine.console) if machine.console else None,
        "guest": str(machine.guest) if machine.guest else None,
        "agent": str(machine.agent) if machine.agent else None,
        "serial": str(machine.serial) if machine.serial else None,
        "trouble": machine.trouble,
    }
