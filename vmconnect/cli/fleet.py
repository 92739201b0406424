"""What a command does to every machine that its target means, and how it tells of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from vmconnect.cli.voice import say
from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError
from vmconnect.hypervisor import Hypervisor, Machine
from vmconnect.session import hypervisor_of, parse_target, resolve_all

__all__ = ["Action", "add_timeout", "for_each", "for_one"]

Action = Callable[[Hypervisor, Machine, Deadline], Any]
_AT_ONCE = 16


def add_timeout(parser: argparse.ArgumentParser, seconds: float) -> None:
    """Add ``--timeout``, for one machine."""
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=seconds,
        help=f"how long it may take (default: {seconds:g})",
    )


def for_one(arguments: argparse.Namespace, action: Action) -> tuple[Machine, Any]:
    """Do something to the one machine that is meant, and return it and what came of it.

    Raises what finding the machine and the action raise; AmbiguousTargetError for several.
    """
    from vmconnect.session import resolve

    deadline = Deadline(arguments.timeout)
    machine = resolve(parse_target(arguments.target), deadline)
    with hypervisor_of(machine) as hypervisor:
        return machine, action(hypervisor, machine, deadline)


def for_each(arguments: argparse.Namespace, action: Action) -> int:
    """Do something to every machine that is meant, and return the exit code.

    One that fails does not keep the others from it: it is told on standard error, and the code is
    1. With ``--json`` there is an object for each, with the fields that ``action`` returns.
    """
    machines = resolve_all(parse_target(arguments.target), Deadline(arguments.timeout))

    def do(machine: Machine) -> Any:
        try:
            with hypervisor_of(machine) as hypervisor:
                return action(hypervisor, machine, Deadline(arguments.timeout))
        except VmconnectError as error:
            return error.with_machine(machine.name)

    if len(machines) == 1:
        results = [do(machines[0])]
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(_AT_ONCE, len(machines))) as pool:
            results = list(pool.map(do, machines))
    if arguments.json:
        told = [_as_json(*each) for each in zip(machines, results, strict=True)]
        print(json.dumps(told, indent=2))  # noqa: T201
    errors = [result for result in results if isinstance(result, VmconnectError)]
    for error in errors:
        say(str(error))
    return 1 if errors else 0


def _as_json(machine: Machine, result: Any) -> dict[str, Any]:
    fields = {
        "name": machine.name,
        "hypervisor": machine.hypervisor,
        "target": machine.target,
        "error": None,
    }
    if isinstance(result, VmconnectError):
        return {**fields, "error": str(result)}
    return {**fields, **(result or {})}
