"""``vmconnect list``: the machines that run here."""

from __future__ import annotations

import argparse
import json

from vmconnect.hypervisor import Machine
from vmconnect.session import list_machines

__all__ = ["configure", "run"]

_COLUMNS = ("NAME", "STATE", "HYPERVISOR", "CONSOLE", "GUEST", "UUID")
_ADDRESSES = ("CONSOLE AT", "GUEST AT")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "A QEMU machine announces itself by its monitor's socket: start it with -qmp "
        "unix:$XDG_RUNTIME_DIR/vmconnect/NAME.qmp,server=on,wait=off"
    )
    parser.add_argument("--long", action="store_true", help="show addresses too")
    parser.add_argument("--json", action="store_true", help="print a JSON array of objects")


def run(arguments: argparse.Namespace) -> int:
    """Print the machines and return the exit code."""
    machines = list_machines()
    if arguments.json:
        print(json.dumps([_as_json(machine) for machine in machines], indent=2))  # noqa: T201
        return 0
    rows = [_COLUMNS, *(_row(machine) for machine in machines)]
    if arguments.long:
        addresses = [_ADDRESSES, *(_addresses(machine) for machine in machines)]
        rows = [row + more for row, more in zip(rows, addresses, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())  # noqa: T201
    return 0


def _row(machine: Machine) -> tuple[str, ...]:
    return (
        _printable(machine.name),
        machine.state.value,
        machine.hypervisor or "-",
        "vnc" if machine.console else "-",
        "vsock" if machine.guest else "-",
        machine.uuid or "-",
    )


def _addresses(machine: Machine) -> tuple[str, ...]:
    return _printable(str(machine.console or "-")), _printable(str(machine.guest or "-"))


def _printable(text: str) -> str:
    """Return what may be shown: a name is the guest owner's word, and not our terminal's."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _as_json(machine: Machine) -> dict[str, str | None]:
    return {
        "name": machine.name,
        "uuid": machine.uuid,
        "state": machine.state.value,
        "hypervisor": machine.hypervisor,
        "target": machine.target,
        "console": str(machine.console) if machine.console else None,
        "guest": str(machine.guest) if machine.guest else None,
    }
