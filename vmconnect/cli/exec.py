"""``vmconnect exec``: run a command in a guest."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.standard import OwnStandard, Standard

if TYPE_CHECKING:
    from vmconnect.direct import Guest, Result

__all__ = [
    "VALUED",
    "VALUED_OF_MANY",
    "arrange",
    "as_json",
    "configure",
    "exit_code",
    "for_many",
    "run",
    "run_in",
]

VALUED = frozenset({"-l", "-i", "--password-file", "--password-fd", "--wait", "--timeout"})
"""Those of the options that have a value."""


VALUED_OF_MANY = frozenset({"-m", "--except", "--throttle"})
"""Those that there are only for many machines."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Each COMMAND word reaches the guest as one argument; for shell syntax say "
        "sh -c '...'. The exit code is the command's, 128 + N when signal N ended it, and 255 "
        "when vmconnect itself failed. With -m MACHINES or --all before the command, and no "
        "TARGET, it runs on many: see vmconnect exec --all --help."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    parser.add_argument("-n", dest="no_stdin", action="store_true", help="give it no input")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="hang up on the command after that long"
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
    words = iter(range(arguments.index("exec") + 1, len(arguments)))
    target_seen = False
    for place in words:
        word = arguments[place]
        if word == "--":
            break
        if word in VALUED:
            next(words, None)
        elif not word.startswith("-") or word == "-":
            if target_seen:
                return [*arguments[:place], "--", *arguments[place:]]
            target_seen = True
    return arguments


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


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    session, guest = open_guest(arguments)
    with session:
        return run_in(guest, session.machine.name, arguments, OwnStandard())


def run_in(
    guest: Guest,
    machine: str,
    arguments: argparse.Namespace,
    standard: Standard,
    on_start: Callable[[Callable[[], None]], object] | None = None,
) -> int:
    """Run the command in a guest that is open, with these streams, and return its exit code.

    ``on_start`` is `Guest.run`'s.
    """
    result = guest.run(
        arguments.argv,
        stdin=None if arguments.no_stdin else standard.input(),
        stdout=None if arguments.json else standard.output,
        stderr=None if arguments.json else standard.error_output,
        timeout=arguments.timeout,
        on_start=on_start,
    )
    if arguments.json:
        standard.output(json.dumps(as_json(machine, result)).encode() + b"\n")
    elif result.signal:
        standard.say(f"the command was ended by SIG{result.signal}")
    return exit_code(result)


def exit_code(result: Result) -> int:
    """Return the exit code that tells of a command's end."""
    if result.exit_code is not None:
        return result.exit_code
    import signal

    number = getattr(signal, f"SIG{result.signal}", None)
    return 128 + number if isinstance(number, signal.Signals) else 255


def as_json(machine: str, result: Result) -> dict[str, object]:
    """Return a command's result as the fields of a JSON object."""
    fields: dict[str, object] = {
        "machine": machine,
        "argv": list(result.argv),
        "exit_code": result.exit_code,
        "signal": result.signal,
        "seconds": round(result.seconds, 6),
    }
    for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        try:
            fields[name] = data.decode()
        except UnicodeDecodeError:
            fields[f"{name}_base64"] = base64.b64encode(data).decode()
    return fields
