"""The part of ``vmconnect sessions`` that is about named sessions, which live in guests."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.table import print_table
from vmconnect.errors import TargetError

if TYPE_CHECKING:
    from vmconnect.direct.named_call import NamedStatus

__all__ = ["add_guest_options", "close_named", "list_named"]

_HEADS = ("SESSION", "KIND", "STATE", "CODE")


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is asked of a guest."""
    add_login_options(parser)
    parser.add_argument(
        "-u", "--user", dest="as_user", metavar="USER", help="the named sessions of USER"
    )


def list_named(arguments: argparse.Namespace) -> None:
    """Print the named sessions of a guest."""
    session, guest = open_guest(arguments)
    with session:
        found = guest.named_sessions(arguments.as_user)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(each) for each in found], indent=2))  # noqa: T201
    else:
        print_table([_HEADS, *map(_row, found)])


def close_named(arguments: argparse.Namespace) -> None:
    """Close named sessions of a guest; raises TargetError for one that is not there."""
    session, guest = open_guest(arguments)
    with session:
        there = {each.name for each in guest.named_sessions(arguments.as_user)}
        for name in arguments.names:
            if name not in there:
                raise TargetError(
                    f"there is no session {name!r}",
                    machine=session.machine.name,
                    hint=f"vmconnect sessions named {arguments.target} lists them",
                )
            guest.named(name, user=arguments.as_user).close()


def _row(status: NamedStatus) -> tuple[str, ...]:
    code = "-" if status.exit_code is None else str(status.exit_code)
    return (status.name, status.kind, status.state, code)
