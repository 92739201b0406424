"""``vmconnect info``: what a machine's guest is, and which ways to it work."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.quantity import amount, duration
from vmconnect.cli.voice import printable
from vmconnect.errors import UnsupportedError, VmconnectError
from vmconnect.session import connect
from vmconnect.session.agent_access import has_agent, open_agent

if TYPE_CHECKING:
    from vmconnect.direct.facts import Facts
    from vmconnect.hypervisor import Machine

__all__ = ["configure", "run"]

# An agent that runs answers at once.
_AGENT_SECONDS = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The guest is asked over SSH by one command, or where nobody can log in by its guest "
        "agent. What it tells is its own word."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    parser.add_argument("--json", action="store_true", help="print it as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print what is known, and return the exit code."""
    with connect(arguments.target) as session:
        machine = session.machine
    channels, facts, failure = _asked(machine, arguments)
    if facts is None and failure is not None:
        raise failure
    if arguments.json:
        print(json.dumps(_as_json(machine, channels, facts), indent=2))  # noqa: T201
    else:
        rows = list(_rows(machine, channels, facts))
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            print(f"{name:<{width}}  {printable(value)}".rstrip())  # noqa: T201
    return 0


def _asked(
    machine: Machine, arguments: argparse.Namespace
) -> tuple[dict[str, str], Facts | None, VmconnectError | None]:
    """Return each channel with how it is, the facts, and why there are none over SSH."""
    channels = {"console": str(machine.console) if machine.console else "none"}
    facts, failure = None, None
    try:
        if machine.guest is None:
            raise UnsupportedError("no vsock device is known of it", machine=machine.name)
        session, guest = open_guest(arguments)
        with session:
            channels["ssh"] = f"as {guest.login.user} by {guest.method} ({guest.greeting})"
            facts = guest.info()
    except VmconnectError as error:
        failure = error
        channels.setdefault("ssh", f"no: {error.message}")
    if not has_agent(machine):
        channels["agent"] = "none"
        return channels, facts, failure
    try:
        with open_agent(machine, _AGENT_SECONDS) as agent:
            channels["agent"] = f"qemu-ga {agent.info().version}"
            if facts is None:
                from vmconnect.direct.facts import agent_facts

                facts = agent_facts(agent)
    except VmconnectError as error:
        channels["agent"] = f"no: {error.message}"
    return channels, facts, failure


def _as_json(machine: Machine, channels: dict[str, str], facts: Facts | None) -> dict[str, Any]:
    return {
        "machine": machine.name,
        "uuid": machine.uuid,
        "target": machine.target,
        "hypervisor": machine.hypervisor,
        "state": machine.state.value,
        "channels": channels,
        "guest": None if facts is None else dataclasses.asdict(facts),
    }


def _rows(
    machine: Machine, channels: dict[str, str], facts: Facts | None
) -> Iterator[tuple[str, str]]:
    by = f", {machine.hypervisor}" if machine.hypervisor else ""
    yield "machine", f"{machine.name} ({machine.state.value}{by})"
    if facts is not None:
        yield from ((name, value) for name, value in _facts_rows(facts) if value)
    for name, state in channels.items():
        yield {"ssh": "SSH", "agent": "guest agent"}.get(name, name), state


def _facts_rows(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "host name", facts.hostname
    yield "system", facts.os_name
    yield "kernel", " ".join(filter(None, (facts.kernel, facts.architecture)))
    yield "up", "" if facts.uptime_s is None else duration(facts.uptime_s)
    yield "processors", "" if facts.cpus is None else str(facts.cpus)
    if facts.memory_bytes is not None:
        free = facts.memory_available_bytes
        rest = "" if free is None else f", {amount(free)} available"
        yield "memory", f"{amount(facts.memory_bytes)}{rest}"
    name = "addresses"
    for interface in facts.interfaces:
        yield name, f"{interface.name}: {' '.join(interface.addresses) or 'none'}"
        name = " "
    name = "disks"
    for each in facts.filesystems:
        used = f"{amount(each.used_bytes)} of {amount(each.size_bytes)} used"
        yield name, f"{each.mount}: {used} ({each.kind} on {each.device})"
        name = " "
