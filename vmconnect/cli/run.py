"""``vmconnect run``: run a local script in guests, and leave nothing of it there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmconnect.cli import exec as exec_one
from vmconnect.cli.forwarding import Forwarding
from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.many import EXIT_CODES, add_options, sweep
from vmconnect.cli.standard import OwnStandard
from vmconnect.cli.surroundings import add_surroundings, given_environment, surroundings
from vmconnect.errors import TargetError
from vmconnect.hypervisor.lookup import is_pattern
from vmconnect.session.groups import MARK

if TYPE_CHECKING:
    from vmconnect.direct import Guest, Result, Script

__all__ = ["arrange", "configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = "vmconnect run [OPTION]... SCRIPT MACHINE... [-- ARGUMENT...]"
    parser.epilog = (
        "A MACHINE is a target, a pattern such as 'web*', or @GROUP. What runs the script is what "
        "its first line (#!) names, or its suffix stands for. On one machine, input, output and "
        "exit code are the script's, as with exec. " + EXIT_CODES
    )
    parser.add_argument("script", metavar="SCRIPT", type=Path, help="a script on this host")
    parser.add_argument("targets", metavar="MACHINE", nargs="*", help="where it is to run")
    add_login_options(parser)
    add_options(parser)
    add_surroundings(parser)
    parser.set_defaults(detach=False, session=None, python=False)
    parser.add_argument(
        "--interpreter", metavar="COMMAND", help="run it by this, not by what its first line names"
    )
    parser.add_argument("-n", dest="no_stdin", action="store_true", help="give it no input")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="end it, and all that it has started, after that long",
    )
    parser.add_argument(
        "--argument", dest="argv", action="append", default=[], help=argparse.SUPPRESS
    )


def arrange(arguments: list[str]) -> list[str]:
    """Put the options first, and make options of what follows ``--``: argparse mixes nothing."""
    start = arguments.index("run") + 1
    before, given = arguments[start:], []
    if "--" in before:
        place = before.index("--")
        before, given = before[:place], before[place + 1 :]
    options: list[str] = []
    others: list[str] = []
    words = iter(before)
    for word in words:
        if word in exec_one.VALUED | exec_one.VALUED_OF_MANY | {"--interpreter"}:
            options += [word, *[value for value in [next(words, None)] if value is not None]]
        else:
            (options if word.startswith("-") and word != "-" else others).append(word)
    after = [f"--argument={word}" for word in given]
    return [*arguments[:start], *options, *after, *others]


def run(arguments: argparse.Namespace) -> int:
    """Run the script and return the exit code."""
    from vmconnect.direct import Script

    script = Script.read(arguments.script, arguments.interpreter)
    machines = [*arguments.targets, *arguments.machines]
    if not machines and not arguments.everything:
        raise TargetError("no machine is named", hint="vmconnect run SCRIPT MACHINE...")
    if len(machines) == 1 and not arguments.everything:
        (target,) = machines
        if not target.startswith(MARK) and not is_pattern(target):
            arguments.target = target
            return _run_on_one(script, arguments)
    around = surroundings(arguments)
    return sweep(
        arguments,
        machines,
        lambda fleet, streams: fleet.script(script, arguments.argv, **streams, **around),
    )


def _run_on_one(script: Script, arguments: argparse.Namespace) -> int:
    given_environment(arguments)  # What is wrong with it is said before anything is done.
    session, guest = open_guest(arguments)
    forwarding = Forwarding()
    with session, forwarding.listening():
        return exec_one.run_in(
            cast("Guest", _Scripted(guest, script)),
            session.machine.name,
            arguments,
            OwnStandard(),
            on_start=lambda control: forwarding.start(control.signal),
            was_interrupted=lambda: forwarding.interrupted,
        )


class _Scripted:
    """A guest in which everything that is run is arguments to a script."""

    def __init__(self, guest: Guest, script: Script):
        self._guest = guest
        self._script = script

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        return self._guest.script(self._script, argv, **options)
