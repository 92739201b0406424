"""The options of every command that logs in to a guest; the letters are ssh's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.trust_question import ask_trust
from vmconnect.deadline import Deadline
from vmconnect.session import Session, connect

if TYPE_CHECKING:
    from vmconnect.direct import Guest

__all__ = ["add_login_options", "open_guest"]


def add_login_options(parser: argparse.ArgumentParser) -> None:
    """Add ``-l``, ``-i``, ``--accept-new-host-key`` and ``--wait``."""
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


def open_guest(arguments: argparse.Namespace) -> tuple[Session, Guest]:
    """Connect to the target's guest as the options say; the caller closes the session."""
    waits = arguments.wait > 0
    deadline = Deadline(max(30.0, arguments.wait))
    session = connect(arguments.target, deadline if waits else 10.0, wait=waits)
    try:
        return session, session.guest(
            user=arguments.user,
            identity_files=arguments.identity_files,
            accept_host_key=lambda key: (
                arguments.accept_new_host_key or ask_trust(session.machine.name, "host key", key)
            ),
            timeout=deadline,
            wait=waits,
        )
    except BaseException:
        session.close()
        raise
