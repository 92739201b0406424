"""``vmconnect agent info`` and ``interfaces``: what a guest's agent tells."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from textwrap import wrap
from typing import Any, TypeVar

from vmconnect.cli.agent_login import agent_of
from vmconnect.cli.quantity import amount
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.deadline import Deadline
from vmconnect.direct.agent import FileSystem, GuestAgent, Interface, Processor, TimeZone
from vmconnect.direct.agent.versions import SINCE
from vmconnect.errors import GuestError, UnsupportedError

__all__ = ["run_info", "run_interfaces"]

T = TypeVar("T")

_SHOWN_USERS = 10
_LINE = 70


def run_info(arguments: argparse.Namespace) -> int:
    """Print all that the agent tells, and return the exit code."""
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        facts = _facts(agent, deadline)
        machine = agent.machine
    if arguments.json:
        print(json.dumps({"machine": machine, **facts}, indent=2, default=_as_json))  # noqa: T201
    else:
        print(printable(machine))  # noqa: T201
        print_table([(f"  {name}", printable(text)) for name, text in _lines(facts)])
    return 0


def run_interfaces(arguments: argparse.Namespace) -> int:
    """Print the network interfaces, and return the exit code."""
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        interfaces = agent.interfaces(deadline)
    if arguments.json:
        print(json.dumps(interfaces, indent=2, default=_as_json))  # noqa: T201
        return 0
    rows = [
        (printable(each.name), printable(each.mac) or "-", _addresses(each) or "-")
        for each in interfaces
    ]
    print_table([("NAME", "MAC", "ADDRESSES"), *rows])
    return 0


def _facts(agent: GuestAgent, deadline: Deadline) -> dict[str, Any]:
    """Return what the agent tells; None where it does not."""

    def told(question: Callable[[Deadline], T]) -> T | None:
        try:
            return question(deadline)
        except (GuestError, UnsupportedError):
            return None

    info = agent.info(deadline)
    here = time.time()
    there = told(agent.time)
    return {
        "agent": info.version,
        "lacks": sorted(set(SINCE) - info.commands),
        "system": told(agent.os_info),
        "host_name": told(agent.host_name),
        "time": there,
        "ahead_s": None if there is None else round(there - here, 3),
        "time_zone": told(agent.time_zone),
        "processors": told(agent.processors),
        "users": told(agent.users),
        "interfaces": told(agent.interfaces),
        "file_systems": told(agent.file_systems),
        "disks": told(agent.disks),
        "file_systems_are": told(agent.freeze_status),
    }


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what a person is told, with a name before each first line."""
    yield "agent", facts["agent"]
    if (system := facts["system"]) is not None:
        parts = (system.name, f"kernel {system.kernel}" if system.kernel else "", system.machine)
        yield "system", ", ".join(filter(None, parts))
    if facts["host_name"] is not None:
        yield "host name", facts["host_name"]
    if facts["time"] is not None:
        yield "clock", _clock(facts["time"], facts["ahead_s"], facts["time_zone"])
    if facts["processors"] is not None:
        yield "processors", _processors(facts["processors"])
    for user in (facts["users"] or ())[:_SHOWN_USERS]:
        yield "user", f"{user.name} since {_when(user.since)}"
    for each in facts["interfaces"] or ():
        if each.addresses:
            yield each.name, _addresses(each)
    for each in facts["file_systems"] or ():
        yield each.mountpoint, _file_system(each)
    if facts["file_systems_are"] == "frozen":
        yield "frozen", "yes: nothing can be written until vmconnect agent thaw"
    lacks = ", ".join(each.removeprefix("guest-") for each in facts["lacks"])
    for number, line in enumerate(wrap(lacks, _LINE, break_on_hyphens=False)):
        yield "" if number else "not permitted", line


def _clock(seconds: float, ahead: float, zone: TimeZone | None) -> str:
    parts = [_when(seconds)]
    if abs(ahead) >= 1:
        parts.append(f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} here")
    if zone is not None:
        parts.append(f"its time zone is {_zone(zone)}")
    return ", ".join(parts)


def _zone(zone: TimeZone) -> str:
    hours, minutes = divmod(abs(zone.offset_s) // 60, 60)
    offset = f"UTC{'-' if zone.offset_s < 0 else '+'}{hours:02}:{minutes:02}"
    if not zone.offset_s:
        offset = "UTC"
    return offset if zone.name in {"", offset} else f"{zone.name} ({offset})"


def _processors(processors: tuple[Processor, ...]) -> str:
    off = sum(not each.online for each in processors)
    return f"{len(processors)}, {off} of them not in use" if off else f"{len(processors)}"


def _addresses(interface: Interface) -> str:
    return " ".join(str(each) for each in interface.addresses)


def _file_system(each: FileSystem) -> str:
    words = f"{each.kind} on {each.device}"
    if each.total_bytes and each.used_bytes is not None:
        share = each.used_bytes / each.total_bytes
        return f"{words}, {share:.0%} of {amount(each.total_bytes)} used"
    return words


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s"


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return str(value)
