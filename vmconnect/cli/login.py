"""The options of every command that logs in to a guest; the letters are ssh's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.password_options import add_password_options, given_password
from vmconnect.cli.trust_question import ask_trust
from vmconnect.cli.voice import say
from vmconnect.deadline import Deadline
from vmconnect.session import Session, connect

if TYPE_CHECKING:
    from vmconnect.direct import Guest

__all__ = ["add_login_options", "arrival", "login_seconds", "open_guest"]

_LOGIN_SECONDS = 30.0


def add_login_options(parser: argparse.ArgumentParser) -> None:
    """Add ``-l``, ``-i``, the password's, ``--accept-new-host-key``, ``--wait`` and ``-v``."""
    parser.add_argument("-l", dest="user", metavar="USER", help="log in as USER")
    parser.add_argument(
        "-i",
        dest="identity_files",
        metavar="KEYFILE",
        type=Path,
        action="append",
        default=[],
        help="log in with this private key, and with no other",
    )
    add_password_options(parser, "the user's password, or with -i the key's passphrase,")
    parser.add_argument(
        "--accept-new-host-key",
        action="store_true",
        help="trust a machine that was never seen, and remember its key",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="keep trying that long, for a machine that is off or a guest that is starting",
    )
    parser.add_argument(
        "-v", dest="verbose", action="store_true", help="say as whom, and how, we came in"
    )


def login_seconds(arguments: argparse.Namespace) -> float:
    """Return how long reaching the guest and logging in may take."""
    wait: float = arguments.wait
    return max(_LOGIN_SECONDS, wait)


def open_guest(arguments: argparse.Namespace) -> tuple[Session, Guest]:
    """Connect to the target's guest as the options say; the caller closes the session."""
    secret = given_password(arguments)
    waits = arguments.wait > 0
    deadline = Deadline(login_seconds(arguments))
    session = connect(arguments.target, deadline if waits else 10.0, wait=waits)
    try:
        guest = session.guest(
            user=arguments.user,
            identity_files=arguments.identity_files,
            password=None if arguments.identity_files else secret,
            passphrase=secret if arguments.identity_files else None,
            accept_host_key=lambda key: (
                arguments.accept_new_host_key or ask_trust(session.machine.name, "host key", key)
            ),
            timeout=deadline,
            wait=waits,
        )
    except BaseException:
        session.close()
        raise
    if arguments.verbose:
        say(arrival(session.machine.name, guest, arguments))
    return session, guest


def arrival(machine: str, guest: Guest, arguments: argparse.Namespace) -> str:
    """Return as whom we came in, and how; and as whom commands run, where that is another."""
    text = f"{machine}: logged in as {guest.login.user} by {guest.method}"
    user = getattr(arguments, "as_user", None)
    if user is None or user == guest.login.user:
        return text
    from vmconnect.direct.command import ways_to_user

    return f"{text}; commands run as {user}, by {ways_to_user(guest.login.user)}"
