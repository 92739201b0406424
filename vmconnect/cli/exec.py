"""``vmconnect exec``: run a command in a guest."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vmconnect.cli.command_result import as_json, exit_code
from vmconnect.cli.command_words import dashed
from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.standard import OwnStandard, Standard
from vmconnect.cli.surroundings import add_surroundings, given_environment
from vmconnect.errors import AmbiguousTargetError, TargetError, UnsupportedError
from vmconnect.hypervisor.lookup import is_pattern

if TYPE_CHECKING:
    from vmconnect.direct import Guest, Result
    from vmconnect.direct.command import Words
    from vmconnect.direct.control import Control

__all__ = [
    "VALUED",
    "VALUED_OF_MANY",
    "arrange",
    "configure",
    "for_many",
    "run",
    "run_in",
]

# fmt: off
VALUED = frozenset((
    "-l", "-i", "--password-file", "--password-fd", "--wait", "--timeout", "-e", "--env",
    "--env-file", "-C", "--cwd", "-u", "--user", "--session",
))
# fmt: on
"""Those of the options that have a value."""


VALUED_OF_MANY = frozenset({"-m", "--except", "--throttle"})
"""Those that there are only for many machines."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Each COMMAND word reaches the guest as one argument; for shell syntax say "
        "sh -c '...'. Signals that vmconnect gets go to the command, Ctrl-C too; a second Ctrl-C "
        "ends it, and all that it has started. The exit code is the command's, 128 + N when "
        "signal N ended it, and 255 when vmconnect itself failed. "
        "With -m MACHINES or --all before the command, and no TARGET, it runs on many: see "
        "vmconnect exec --all --help."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    parser.add_argument("-n", dest="no_stdin", action="store_true", help="give it no input")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="end the command, and all that it has started, after that long",
    )
    add_surroundings(parser)
    parser.add_argument(
        "-t", dest="terminal", action="store_true", help="give it a terminal, as shell does"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--session",
        metavar="NAME",
        help="do it in the guest's session of that name, made if need be, which keeps directory, "
        "variables and functions; one COMMAND word is a text for its shell",
    )
    parser.add_argument(
        "--python",
        action="store_true",
        help="with --session: a session of Python, and COMMAND is one word, its source",
    )
    kept.add_argument(
        "--detach",
        action="store_true",
        help="leave it running in the guest, with no input, and print its name for vmconnect jobs",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--no-broker",
        action="store_true",
        help="use no session that was kept open, and keep none (so does VMCONNECT_BROKER=0)",
    )
    parser.add_argument("argv", metavar="COMMAND", nargs="+", help="the command and its arguments")


def arrange(arguments: list[str]) -> list[str]:
    """Put ``--`` before the guest's command where it is missing, as ssh does without it."""
    return dashed(arguments, arguments.index("exec") + 1, VALUED)


def for_many(arguments: list[str]) -> bool:
    """Return whether it is for many machines: `vmconnect.cli.exec_many` then reads the rest."""
    words = iter(arguments[arguments.index("exec") + 1 :])
    for word in words:
        if word.startswith(("-m", "--all")):
            return True
        if word in VALUED | VALUED_OF_MANY:
            next(words, None)
        elif word == "--" or not word.startswith("-"):
            break
    return False


@contextlib.contextmanager
def one_machine(target: str) -> Iterator[None]:
    """Find a machine in a ``with`` block; whose pattern means several hears how to run on all."""
    try:
        yield
    except AmbiguousTargetError as error:
        if is_pattern(target):
            error.hint = f"{error.hint}; exec -m runs on all of them"
        raise


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from vmconnect.cli.forwarding import Forwarding

    if arguments.terminal and _has_more_than_terminal(arguments):
        raise UnsupportedError("-t goes with no option but those of the login, and -n")
    given_environment(arguments)  # What is wrong with it is said before anything is done.
    with one_machine(arguments.target):
        session, guest = open_guest(arguments)
    if arguments.terminal:
        from vmconnect.cli.shell import run_on_terminal

        with session:
            return run_on_terminal(guest, arguments.argv, no_input=arguments.no_stdin)
    forwarding = Forwarding()
    with session, forwarding.listening():
        return run_in(
            guest,
            session.machine.name,
            arguments,
            OwnStandard(),
            on_start=lambda control: forwarding.start(control.signal),
            was_interrupted=lambda: forwarding.interrupted,
        )


def run_in(
    guest: Guest,
    machine: str,
    arguments: argparse.Namespace,
    standard: Standard,
    *,
    on_start: Callable[[Control], object],
    was_interrupted: Callable[[], bool],
) -> int:
    """Run the command in a guest that is open, with these streams, and return its exit code.

    ``on_start`` is `Guest.run`'s; ``was_interrupted`` says whether a Ctrl-C was passed on: a
    command that it ends raises KeyboardInterrupt.
    """
    if arguments.detach:
        return _detach(guest, arguments, standard)
    run_command, command = _where(guest, arguments)
    result = run_command(
        command,
        env=given_environment(arguments),
        cwd=arguments.cwd,
        stdin=None if arguments.no_stdin else standard.input(),
        stdout=None if arguments.json else standard.output,
        stderr=None if arguments.json else standard.error_output,
        timeout=arguments.timeout,
        on_start=on_start,
    )
    if result.signal == "INT" and was_interrupted():
        raise KeyboardInterrupt
    if arguments.json:
        standard.output(json.dumps(as_json(machine, result)).encode() + b"\n")
    elif result.signal:
        standard.say(f"the command was ended by SIG{result.signal}")
    return exit_code(result)


def _where(guest: Guest, arguments: argparse.Namespace) -> tuple[Callable[..., Result], Words]:
    """Return what runs the command: the guest, or a session in it; and the command for that."""
    if arguments.session is None:
        if arguments.python:
            raise TargetError("--python goes with --session")
        return functools.partial(guest.run, user=arguments.as_user), arguments.argv
    session = guest.named(arguments.session, python=arguments.python, user=arguments.as_user)
    words: list[str] = arguments.argv
    return session.run, words[0] if len(words) == 1 else words


def _detach(guest: Guest, arguments: argparse.Namespace, standard: Standard) -> int:
    job = guest.jobs(arguments.as_user).start(
        arguments.argv,
        env=given_environment(arguments),
        cwd=arguments.cwd,
        timeout=arguments.timeout,
    )
    standard.output(f"{job.name}\n".encode())
    return 0


def _has_more_than_terminal(arguments: argparse.Namespace) -> bool:
    """Return whether there are options that a terminal does not take."""
    names = ("json", "session", "python", "detach", "env", "env_file", "cwd", "as_user")
    return arguments.timeout is not None or any(getattr(arguments, name) for name in names)
