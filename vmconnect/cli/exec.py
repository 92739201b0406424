"""``vmconnect exec``: run a command in a guest."""

from __future__ import annotations

import argparse
import base64
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vmconnect.cli.login import add_login_options, open_guest

if TYPE_CHECKING:
    from vmconnect.direct import Result

__all__ = ["arrange", "configure", "run"]

_VALUED = {"-l", "-i", "--password-file", "--password-fd", "--wait", "--timeout"}
_READ_BYTES = 1 << 17


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Each COMMAND word reaches the guest as one argument; for shell syntax say "
        "sh -c '...'. The exit code is the command's, 128 + N when signal N ended it, and 255 "
        "when vmconnect itself failed."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    parser.add_argument("-n", dest="no_stdin", action="store_true", help="give it no input")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="hang up on the command after that long"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("argv", metavar="COMMAND", nargs="+", help="the command and its arguments")


def arrange(arguments: list[str]) -> list[str]:
    """Put ``--`` before the guest's command where it is missing, as ssh does without it."""
    words = iter(range(arguments.index("exec") + 1, len(arguments)))
    target_seen = False
    for place in words:
        word = arguments[place]
        if word == "--":
            break
        if word in _VALUED:
            next(words, None)
        elif not word.startswith("-") or word == "-":
            if target_seen:
                return [*arguments[:place], "--", *arguments[place:]]
            target_seen = True
    return arguments


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    session, guest = open_guest(arguments)
    with session:
        result = guest.run(
            arguments.argv,
            stdin=None if arguments.no_stdin else _standard_input(),
            stdout=None if arguments.json else _writer(1),
            stderr=None if arguments.json else _writer(2),
            timeout=arguments.timeout,
        )
    if arguments.json:
        print(json.dumps(_as_json(session.machine.name, result)))  # noqa: T201
    elif result.signal:
        sys.stderr.write(f"vmconnect: the command was ended by SIG{result.signal}\n")
    return _exit_code(result)


def _exit_code(result: Result) -> int:
    if result.exit_code is not None:
        return result.exit_code
    number = getattr(signal, f"SIG{result.signal}", None)
    return 128 + number if isinstance(number, signal.Signals) else 255


def _standard_input() -> Iterator[bytes]:
    while True:
        try:
            data = os.read(0, _READ_BYTES)
        except OSError:
            return  # Started with no standard input.
        if not data:
            return
        yield data


def _writer(descriptor: int) -> Callable[[bytes], None]:
    """Return a sink that writes all it is given to a file descriptor, unbuffered."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    return write


def _as_json(machine: str, result: Result) -> dict[str, object]:
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
