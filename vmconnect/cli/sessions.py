"""``vmconnect sessions``: those that the broker keeps open, and the named ones in guests."""

from __future__ import annotations

import argparse
import json
from typing import Any

from vmconnect.broker import wire
from vmconnect.broker.ask import ask
from vmconnect.cli.named_sessions import add_guest_options, close_named, list_named
from vmconnect.cli.quantity import duration
from vmconnect.cli.table import print_table
from vmconnect.cli.voice import printable
from vmconnect.errors import TargetError

__all__ = ["configure", "run"]

_HEADS = ("MACHINE", "USER", "CHANNELS", "STATE", "AGE", "IDLE", "RUNNING", "DONE")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "vmconnect exec leaves its session open for the next command, in a process of yours in "
        "the background, the broker. A session is closed when it has been idle for ten minutes "
        "($VMCONNECT_BROKER_IDLE has other seconds), and the broker ends as long after the last. "
        "VMCONNECT_BROKER=0 does without. What runs in a session that is closed, or when the "
        "broker is stopped, runs on to its end. The named sessions of exec --session are the "
        "guest's own, and outlive all of this: sessions named TARGET lists them, sessions close "
        "TARGET NAME ends them."
    )
    parser.add_argument("--json", action="store_true", help="print a JSON array of objects")
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    summary = "list the named sessions in a guest"
    named = actions.add_parser("named", help=summary, description=summary)
    named.set_defaults(action="named")
    named.add_argument("target", metavar="TARGET", help="the machine")
    named.add_argument("--json", action="store_true", help="print a JSON array of objects")
    add_guest_options(named)
    summary = "close the sessions with a machine, or all; or named ones in its guest"
    close = actions.add_parser("close", help=summary, description=summary)
    close.set_defaults(action="close")
    which = close.add_mutually_exclusive_group(required=True)
    which.add_argument("target", metavar="TARGET", nargs="?", help="a name, UUID or target")
    which.add_argument("--all", action="store_true", help="every session")
    close.add_argument(
        "names", metavar="NAME", nargs="*", help="a named session, which ends with what runs in it"
    )
    add_guest_options(close)
    summary = "close all, and end the broker"
    stop = actions.add_parser("stop", help=summary, description=summary)
    stop.set_defaults(action="stop")


def run(arguments: argparse.Namespace) -> int:
    """List or close sessions, or end the broker, and return the exit code."""
    if arguments.action == "named":
        list_named(arguments)
    elif arguments.action == "close" and arguments.names:
        close_named(arguments)
    elif arguments.action == "close":
        _close([] if arguments.all else [arguments.target])
    elif arguments.action == "stop":
        list(ask(wire.STOP))
    else:
        sessions = [json.loads(each[1:]) for each in ask(wire.SESSIONS)]
        if arguments.json:
            print(json.dumps(sessions, indent=2))  # noqa: T201
        else:
            print_table([_HEADS, *map(_row, sessions)])
    return 0


def _close(names: list[str]) -> None:
    closed = sum(int(each[1:]) for each in ask(wire.CLOSE, *names))
    if names and not closed:
        raise TargetError(
            f"no session with {names[0]!r} is open", hint="vmconnect sessions lists them"
        )


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    return (
        printable(session["machine"]),
        printable(session["user"]),
        ",".join(session["channels"]),
        session["state"],
        duration(session["age_s"]),
        "-" if session["running"] else duration(session["idle_s"]),
        str(session["running"]),
        str(session["done"]),
    )
