"""``vmconnect keys``: keys that the hypervisor presses, with no console attached."""

from __future__ import annotations

import argparse

from vmconnect.cli.fleet import add_timeout, for_each
from vmconnect.deadline import Deadline
from vmconnect.hypervisor import Hypervisor, Machine

__all__ = ["chord", "configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "A CHORD is keys with - between them, pressed together: ctrl-alt-delete, shift-f10, a, "
        "enter, ctrl-- (Ctrl and minus). Chords are pressed one after the other. Keys are named "
        "by their places on a US keyboard."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine, or a pattern of names")
    parser.add_argument("chords", metavar="CHORD", nargs="+", help="the keys to press together")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON array, an object for each machine"
    )
    add_timeout(parser, 30.0)


def run(arguments: argparse.Namespace) -> int:
    """Press them, and return the exit code."""
    chords = [chord(text) for text in arguments.chords]  # all of them, before the first is pressed

    def press(hypervisor: Hypervisor, machine: Machine, deadline: Deadline) -> dict[str, object]:
        for scancodes in chords:
            hypervisor.send_keys(machine, scancodes, deadline)
        return {"keys": arguments.chords}

    return for_each(arguments, press)


def chord(text: str) -> list[int]:
    """Return the scancodes (XT set 1) of keys with ``-`` between them; raises TargetError."""
    from vmconnect.errors import TargetError
    from vmconnect.vnc.keys import SHIFT, key, stroke

    if text == "-":
        names = ["-"]
    elif text.endswith("--"):  # the hyphen is the last key
        names = [*text.removesuffix("--").split("-"), "-"]
    else:
        names = text.split("-")
    codes: list[int] = []
    for name in names:
        if not name:
            raise TargetError(f"{text!r} is no chord of keys", hint="ctrl-alt-delete is one")
        found = key(name)
        if not found.scancode:
            raise TargetError(
                f"{name!r} has no place on a US keyboard",
                hint="only those can be pressed by the hypervisor",
            )
        shifted = len(name) == 1 and stroke(name).shift and SHIFT.scancode not in codes
        codes += [SHIFT.scancode] * shifted + [found.scancode]
    return codes
