"""From the command line to one command, and from its errors to one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vmconnect.cli.version import Version
from vmconnect.cli.voice import say
from vmconnect.errors import VmconnectError

__all__ = ["Parser", "main", "verdict"]

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it.
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

COMMANDS = {
    "agent": "ask a machine's guest agent: run, freeze, set passwords, with no login",
    "checkpoint": "keep a machine's state, and go back to it",
    "completion": "make a shell complete commands, options and machines",
    "console": "open a window on a machine's screen",
    "cp": "copy files and directories into guests, out of them, and between them",
    "credential": "keep passwords of machines in the keyring",
    "demo": "boot a real Linux guest and show what can be done with it",
    "doctor": "find out which link to a machine is broken, and how to mend it",
    "exec": "run a command in a machine's guest, over vsock",
    "forward": "forward ports and sockets into a machine's guest, and out of it",
    "hints": "tell what makes a machine reachable, and what it lacks",
    "info": "tell what a machine's guest is, and which ways to it work",
    "jobs": "list, collect and end what exec --detach left running in a guest",
    "journal": "show what was done with machines from here, by whom, and with what result",
    "keys": "press keys on a machine's keyboard, with no console attached",
    "list": "list the machines that run here",
    "media": "put media into a machine's drives, and take them out",
    "power": "turn machines on and off, reset, pause, resume and save them",
    "proxy": "join standard input and output to a guest's SSH server, for ssh's ProxyCommand",
    "record": "record what a machine's screen shows, to a file",
    "replay": "show a recording, or make pictures, a video or text of it",
    "run": "run a script of yours in guests, and leave nothing of it there",
    "screenshot": "write a machine's screen to a PNG file",
    "sessions": "list and close the sessions that are kept open between commands",
    "shell": "open a shell in a machine's guest, on this terminal",
    "ssh-config": "print the lines by which plain ssh reaches guests",
    "trust": "list, add and forget the keys that machines are known by",
    "vsock-device": "serve a user-space vsock device to QEMU",
}

# By this a shell asks for what may follow (argcomplete).
_ASKING = "_ARGCOMPLETE"

# As ssh: every other code is the guest's.
_USAGE_EXIT = {"exec": 255, "proxy": 255, "run": 255, "shell": 255}


class Parser(argparse.ArgumentParser):
    """argparse with our exit codes and one-line errors."""

    usage_exit = 2

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        self.exit(self.usage_exit, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in arguments if not word.startswith("-")), "")
    if _ASKING in os.environ:
        from vmconnect.cli.completers import words_before

        arguments = words_before(COMMANDS)
        name = arguments[0] if arguments else ""
    try:
        return _run(name, arguments)
    except BrokenPipeError as error:
        # Whoever read our output has left. Python must not try to flush it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return verdict(name, error)[1]
    except (Exception, KeyboardInterrupt) as error:
        known = isinstance(error, VmconnectError | KeyboardInterrupt)
        if not known and os.environ.get("VMCONNECT_DEBUG"):
            raise
        text, code = verdict(name, error)
        say(text)
        return code


def verdict(name: str, error: BaseException) -> tuple[str, int]:
    """Return what is said of an error that ended the command ``name``, and the exit code.

    Of a reader that has left nothing is said.
    """
    failure = _USAGE_EXIT.get(name, EXIT_FAILURE)
    match error:
        case VmconnectError():
            return str(error), failure
        case KeyboardInterrupt():
            return "interrupted", EXIT_INTERRUPTED
        case BrokenPipeError():
            return "", EXIT_BROKEN_PIPE
    return (
        f"internal error: {error!r} (VMCONNECT_DEBUG=1 shows where; please report it)",
        failure,
    )


def _run(name: str, arguments: list[str]) -> int:
    parser = Parser(prog="vmconnect", description="Console and commands for every machine.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=Parser,
        prog=parser.prog,  # else argparse asks for the terminal's size to work it out
    )
    # Where the command comes first nothing is asked of the others.
    known = COMMANDS if arguments[:1] != [name] or name not in COMMANDS else [name]
    for command in known:
        summary = COMMANDS[command]
        sub = commands.add_parser(command, help=summary, description=summary)
        sub.usage_exit = _USAGE_EXIT.get(command, sub.usage_exit)
        if command == name:
            module = importlib.import_module(f"vmconnect.cli.{command.replace('-', '_')}")
            if hasattr(module, "for_many") and module.for_many(arguments):
                module = importlib.import_module(f"{module.__name__}_many")
            module.configure(sub)
            arguments = getattr(module, "arrange", list)(arguments)
    if _ASKING in os.environ:
        from vmconnect.cli.completers import complete

        return complete(parser, arguments)
    parsed = parser.parse_args(arguments)
    code: int = module.run(parsed)
    return code
