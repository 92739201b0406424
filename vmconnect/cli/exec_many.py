"""``vmconnect exec -m MACHINES``: run a command in the guests of many machines."""

from __future__ import annotations

import argparse

from vmconnect.cli.command_words import dashed
from vmconnect.cli.exec import VALUED, VALUED_OF_MANY
from vmconnect.cli.login import add_login_options
from vmconnect.cli.many import EXIT_CODES, add_options, sweep
from vmconnect.cli.surroundings import add_surroundings, surroundings

__all__ = ["arrange", "configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.usage = "vmconnect exec (-m MACHINES)... [--all] [OPTION]... [--] COMMAND..."
    parser.epilog = (
        "Each COMMAND word reaches the guests as one argument; for shell syntax say sh -c '...'. "
        "A machine that fails keeps no other from its turn. " + EXIT_CODES
    )
    add_login_options(parser)
    add_options(parser)
    add_surroundings(parser)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="end a command, and all that it has started, after that long",
    )
    parser.add_argument("argv", metavar="COMMAND", nargs="+", help="the command and its arguments")


def arrange(arguments: list[str]) -> list[str]:
    """Put ``--`` before the guests' command where it is missing."""
    return dashed(arguments, arguments.index("exec") + 1, VALUED | VALUED_OF_MANY, operands=0)


def run(arguments: argparse.Namespace) -> int:
    """Run the command on all machines and return the exit code."""
    around = surroundings(arguments)
    return sweep(
        arguments,
        arguments.machines,
        lambda fleet, streams: fleet.run(arguments.argv, **streams, **around),
    )
