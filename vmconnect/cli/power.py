"""``vmconnect power``: what the switches on a machine's front do."""

from __future__ import annotations

import argparse
from typing import Any

from vmconnect.cli.fleet import add_timeout, for_each
from vmconnect.deadline import Deadline
from vmconnect.errors import VmconnectError
from vmconnect.hypervisor import Hypervisor, Machine

__all__ = ["configure", "run"]

_ACTIONS = {
    "on": Hypervisor.power_on.__name__,
    "off": Hypervisor.power_off.__name__,
    "shutdown": Hypervisor.shut_down.__name__,
    "reset": Hypervisor.reset.__name__,
    "pause": Hypervisor.pause.__name__,
    "resume": Hypervisor.resume.__name__,
    "save": Hypervisor.save.__name__,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "on: start it, from its saved state if it has one. off: pull the plug. shutdown: ask the "
        "guest. reset: press the reset button. pause, resume: stop the processors, let them go "
        "on. save: write its state to disk and turn it off. TARGET may be a pattern, 'web*', for "
        "many machines. The exit code is 1 if it failed for any of them."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine, or a pattern of names")
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument(
        "--wait", action="store_true", help="with shutdown: return only when the machine is off"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON array, an object for each machine"
    )
    add_timeout(parser, 120.0)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""

    def act(hypervisor: Hypervisor, machine: Machine, deadline: Deadline) -> dict[str, Any]:
        more = {"wait": True} if arguments.action == "shutdown" and arguments.wait else {}
        getattr(hypervisor, _ACTIONS[arguments.action])(machine, deadline, **more)
        if not arguments.json:
            return {}
        return {"action": arguments.action, "state": _state(hypervisor, machine, deadline)}

    return for_each(arguments, act)


def _state(hypervisor: Hypervisor, machine: Machine, deadline: Deadline) -> str | None:
    """Return what the machine does now; None where nobody is left to tell."""
    try:
        return hypervisor.refresh(machine, deadline).state.value
    except VmconnectError:
        return None
