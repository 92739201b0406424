"""``vmconnect checkpoint``: states of a machine that can be gone back to."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

from vmconnect.cli.fleet import add_timeout, for_each, for_one
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.deadline import Deadline
from vmconnect.hypervisor import Checkpoint, Hypervisor, Machine

__all__ = ["configure", "run"]

_SUMMARIES = {
    "list": "list a machine's checkpoints, the oldest first",
    "create": "keep the machine's present state",
    "apply": "put the machine back into a kept state; what it did since is lost",
    "delete": "delete a checkpoint; the machine's present state does not change",
}
_NAME_FORMAT = "%Y-%m-%d-%H%M%S"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, summary in _SUMMARIES.items():
        sub = actions.add_parser(action, help=summary, description=summary)
        many = action == "create"
        sub.add_argument(
            "target",
            metavar="TARGET",
            help="the machine, or a pattern of names" if many else "the machine",
        )
        if action != "list":
            sub.add_argument(
                "name",
                metavar="NAME",
                nargs="?" if many else None,
                help="the checkpoint's name" + (" (default: the time)" if many else ""),
            )
        sub.add_argument("--json", action="store_true", help="print JSON")
        add_timeout(sub, 10.0 if action == "list" else 300.0)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    if arguments.action == "list":
        return _list(arguments)
    if arguments.action == "create":
        name = arguments.name or datetime.now().astimezone().strftime(_NAME_FORMAT)
        code = for_each(arguments, lambda h, m, deadline: _create(h, m, name, deadline))
        if arguments.name is None and code == 0 and not arguments.json:
            print(name)  # noqa: T201
        return code
    change = f"{arguments.action}_checkpoint"
    machine, _ = for_one(
        arguments, lambda h, m, deadline: getattr(h, change)(m, arguments.name, deadline)
    )
    if arguments.json:
        told = {"machine": machine.name, "action": arguments.action, "checkpoint": arguments.name}
        print(json.dumps(told))  # noqa: T201
    return 0


def _create(
    hypervisor: Hypervisor, machine: Machine, name: str, deadline: Deadline
) -> dict[str, Any]:
    hypervisor.create_checkpoint(machine, name, deadline)
    return {"checkpoint": name}


def _list(arguments: argparse.Namespace) -> int:
    _, checkpoints = for_one(arguments, lambda h, m, deadline: h.checkpoints(m, deadline))
    if arguments.json:
        print(json.dumps([_as_json(each) for each in checkpoints], indent=2))  # noqa: T201
    else:
        print_table([("NAME", "CREATED", "MEMORY", ""), *map(_row, checkpoints)])
    return 0


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    created = checkpoint.created
    return (
        printable(checkpoint.name),
        created.astimezone().strftime("%Y-%m-%d %H:%M:%S") if created else "-",
        "-" if checkpoint.size is None else f"{checkpoint.size / (1 << 20):.1f} MiB",
        "current" if checkpoint.current else "",
    )


def _as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "created": checkpoint.created.isoformat() if checkpoint.created else None,
        "size": checkpoint.size,
        "current": checkpoint.current,
    }
