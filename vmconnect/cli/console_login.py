"""The options of every command that attaches to a console."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.password_options import add_password_options, given_password
from vmconnect.cli.trust_question import ask_trust
from vmconnect.session import Session

if TYPE_CHECKING:
    from vmconnect.vnc import Console

__all__ = ["add_console_options", "open_console"]


def add_console_options(parser: argparse.ArgumentParser) -> None:
    """Add how the picture is to come, who we are to the VNC server, and whom we trust."""
    picture = parser.add_argument_group(
        "picture", "What is not given follows from how fast the link is, and changes with it."
    )
    picture.add_argument("--encoding", metavar="NAME", help="tight, zrle, hextile, raw...")
    picture.add_argument(
        "--quality",
        metavar="0..9",
        type=_quality,
        help="what may be lost, also as 0%% to 100%%; lossless: nothing",
    )
    picture.add_argument("--compression", metavar="0..9", type=int, help="how hard it is tried")
    group = parser.add_argument_group(
        "login",
        "A password that is not given here is taken from $VMCONNECT_CONSOLE_PASSWORD_NAME, "
        "$VNC_PASSWORD or the keyring (vmconnect credential), a user's name from $VNC_USERNAME; "
        "what is then still wanted is asked for.",
    )
    group.add_argument("-l", dest="user", metavar="USER", help="log in as USER")
    add_password_options(group, "the password")
    group.add_argument(
        "--ca",
        metavar="FILE.pem",
        type=Path,
        help="the server's certificate must be signed by one of these, for its name",
    )
    group.add_argument(
        "--certificate", metavar="FILE.pem", type=Path, help="show the server this certificate"
    )
    group.add_argument("--private-key", metavar="FILE.pem", type=Path, help="the private key to it")
    group.add_argument(
        "--accept-new-host-key",
        action="store_true",
        help="trust a server that was never seen, and remember its key",
    )
    group.add_argument(
        "--trust-network",
        action="store_true",
        help="nobody listens between here and the server: logins that show the password will do",
    )


def _quality(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def open_console(
    session: Session,
    arguments: argparse.Namespace,
    timeout: float = 10.0,
    tap: Callable[[memoryview], object] | None = None,
    *,
    reconnect: bool = True,
    at_once: bool = False,
) -> Console:
    """Attach to the console of the session's machine as the options say.

    ``tap``, ``reconnect`` and ``at_once`` are `Session.console`'s.
    """
    from vmconnect.vnc.policy import Policy
    from vmconnect.vnc.preference import Preference

    preference = Preference(arguments.encoding, arguments.quality, arguments.compression)
    name = session.machine.name
    return session.console(
        password=given_password(arguments),
        user=arguments.user,
        accept_host_key=lambda key: (
            arguments.accept_new_host_key or ask_trust(name, "VNC server's key", key)
        ),
        policy=Policy(
            private=arguments.trust_network,
            authority=arguments.ca,
            certificate=arguments.certificate,
            private_key=arguments.private_key,
        ),
        preference=preference,
        tap=tap,
        timeout=timeout,
        reconnect=reconnect,
        at_once=at_once,
    )
