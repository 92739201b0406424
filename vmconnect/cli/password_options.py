"""The options that say where a password is, for every command that logs in."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmconnect.secret import Secret

__all__ = ["add_password_options", "given_password"]


def add_password_options(group: argparse._ActionsContainer, what: str) -> None:
    """Add ``--password-file`` and ``--password-fd``, of which there can be one."""
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--password-file", metavar="FILE", type=Path, help=f"{what} is FILE's first line"
    )
    source.add_argument(
        "--password-fd", metavar="N", type=int, help=f"read {what} from file descriptor N"
    )


def given_password(arguments: argparse.Namespace) -> Secret | None:
    """Return the password that the options name; None if they name none.

    Raises ResourceError if there is none to be read.
    """
    from vmconnect.session.secrets import secret_from_descriptor, secret_from_file

    if arguments.password_file is not None:
        return secret_from_file(arguments.password_file)
    if arguments.password_fd is not None:
        return secret_from_descriptor(arguments.password_fd)
    return None
