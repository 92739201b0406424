"""``vmconnect credential``: passwords of machines in the user's keyring."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
from typing import Any

from vmconnect.cli.password_options import add_password_options, given_password
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.errors import MachineNotFoundError, ResourceError, VmconnectError
from vmconnect.session import ask_secret, parse_target, resolve
from vmconnect.session.keyring import Keyring, KeyringEntry
from vmconnect.session.purpose import Purpose

__all__ = ["configure", "run"]

_SECONDS = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "Needs the Python package keyring, and a keyring that it finds: Secret Service, KWallet "
        "and others. Passwords are kept by the machine's UUID. See docs/logins.md."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    summary = "list for which machines there is a password"
    sub = actions.add_parser("list", help=summary, description=summary)
    sub.add_argument("--json", action="store_true", help="print a JSON array")
    summary = "put a machine's password into the keyring; it is asked for"
    sub = _on_machine(actions, "set", summary)
    add_password_options(sub, "the password")
    _on_machine(actions, "forget", "take a machine's password out of the keyring")


def _on_machine(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    sub.add_argument("target", metavar="TARGET", help="the machine")
    sub.add_argument(
        "purpose",
        choices=[each.value for each in Purpose],
        help="what it opens: the console (VNC), or a user's login in the guest",
    )
    sub.add_argument(
        "-l", dest="user", metavar="USER", help="whose it is (default for a guest: your own name)"
    )
    return sub


def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    actions = {"list": _list, "set": _set, "forget": _forget}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    entries = sorted(Keyring().entries(), key=lambda each: (each.machine, each.account))
    if arguments.json:
        objects = [
            {
                "machine": each.machine,
                "identity": each.identity,
                "for": each.purpose.value,
                "user": each.user,
            }
            for each in entries
        ]
        print(json.dumps(objects, indent=2))  # noqa: T201
        return 0
    rows = [
        (
            printable(each.machine),
            each.purpose.value,
            printable(each.user or "-"),
            printable(each.identity),
        )
        for each in entries
    ]
    print_table([("MACHINE", "FOR", "USER", "IDENTITY"), *rows])
    return 0


def _set(arguments: argparse.Namespace) -> int:
    machine = resolve(parse_target(arguments.target), _SECONDS)
    purpose = Purpose(arguments.purpose)
    user = arguments.user or machine.console_user
    if purpose is Purpose.GUEST:
        user = arguments.user or machine.note.user or getpass.getuser()
    whose = f"of {user} on {machine.name}" if user else f"of {machine.name}"
    password = given_password(arguments) or ask_secret(f"{purpose.value} password {whose}: ")
    if password is None:
        raise ResourceError("there is no password to keep", hint="use --password-file")
    Keyring().store(KeyringEntry(purpose, machine.identity, user, machine.name), password)
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    purpose, keyring = Purpose(arguments.purpose), Keyring()
    places = {arguments.target}
    with contextlib.suppress(VmconnectError):  # The machine need not be there any more.
        places.add(resolve(parse_target(arguments.target), _SECONDS).identity)
    found = [
        each
        for each in keyring.entries()
        if each.purpose is purpose
        and places & {each.identity, each.machine}
        and arguments.user in {None, each.user}
    ]
    if not found:
        raise MachineNotFoundError(
            f"there is no {purpose.value} password of {arguments.target!r}",
            hint="vmconnect credential list",
        )
    for each in found:
        keyring.forget(each)
    return 0
