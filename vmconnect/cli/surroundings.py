"""The options that say what a guest's command finds around it: variables, directory, user."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_surroundings", "given_environment", "surroundings"]


def add_surroundings(parser: argparse.ArgumentParser) -> None:
    """Add ``-e``, ``--env-file``, ``-C`` and ``-u``."""
    parser.add_argument(
        "-e",
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="set a variable for the command; without a value to that of ours",
    )
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="set the variables of FILE, which has one NAME=VALUE a line",
    )
    parser.add_argument("-C", "--cwd", metavar="DIR", help="run it in that directory of the guest")
    parser.add_argument(
        "-u",
        "--user",
        dest="as_user",
        metavar="USER",
        help="run it as USER, by runuser, su, sudo or doas once we are in",
    )


def given_environment(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the variables that the options set; raises ResourceError, TargetError."""
    if not arguments.env and not arguments.env_file:
        return {}
    from vmconnect.cli.environment import environment

    return environment(arguments.env, arguments.env_file)


def surroundings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return `Guest.run`'s arguments for what the options say, without those that say nothing."""
    given = {
        "env": given_environment(arguments),
        "cwd": arguments.cwd,
        "user": arguments.as_user,
    }
    return {name: value for name, value in given.items() if value}
