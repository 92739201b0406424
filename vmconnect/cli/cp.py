"""``vmconnect cp``: copy files and directories into guests, out of them, and between them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vmconnect.cli.copy_ends import CopyEnd, read_end
from vmconnect.cli.login import add_login_options, login_seconds, open_guest
from vmconnect.cli.quantity import amount
from vmconnect.cli.voice import say
from vmconnect.errors import TargetError

if TYPE_CHECKING:
    from vmconnect.direct import Guest
    from vmconnect.direct.copy import Copied, Failure, Options

__all__ = ["configure", "run"]

_WAYS = {"vsock": "vsock", "ssh": "SSH", "sftp": "SFTP"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "An end is PATH here, or TARGET:PATH in a guest; [TARGET]:PATH if the target has a colon "
        "or a slash. Patterns in a guest's path are quoted: 'web01:/var/log/*.log'. Directories "
        "are copied whole; modes, times, links, holes and extended attributes are kept. A file "
        "gets its name only when it is whole, and a copy that was cut goes on when it is said "
        "again. The exit code is 1 when a file could not be copied; the others are."
    )
    parser.add_argument("sources", metavar="SRC", nargs="+", help="what to copy")
    parser.add_argument("destination", metavar="DST", help="where to; a directory for many")
    add_login_options(parser)
    parser.add_argument("--sync", action="store_true", help="only what differs in size or time")
    parser.add_argument(
        "--special", action="store_true", help="FIFOs and devices too; else they are refused"
    )
    parser.add_argument(
        "--via", choices=sorted(_WAYS), help="by this way alone (default: the best there is)"
    )
    parser.add_argument("-q", dest="quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print what came of it as JSON")
    for letter in "rRpa":
        parser.add_argument(
            f"-{letter}",
            dest="habit",
            action="store_true",
            help="accepted for who is used to it: it is always so"
            if letter == "r"
            else argparse.SUPPRESS,
        )


def run(arguments: argparse.Namespace) -> int:
    """Copy, and return the exit code."""
    sources = [read_end(each) for each in arguments.sources]
    destination = read_end(arguments.destination)
    if destination.target is None and all(each.target is None for each in sources):
        raise TargetError(
            "neither end is in a guest", hint="write TARGET:PATH; for copies on this host, say cp"
        )
    groups: dict[str | None, list[str]] = {}
    for each in sources:
        groups.setdefault(each.target, []).append(each.path)
    with contextlib.ExitStack() as sessions:
        guests: dict[str | None, Guest | None] = {None: None}
        for target in (destination.target, *groups):
            if target not in guests:
                guests[target] = _opened(arguments, target or "", sessions)
        several = len(groups) > 1
        copied = [
            _copy(
                arguments, guests[target], paths, guests[destination.target], destination, several
            )
            for target, paths in groups.items()
        ]
    if arguments.json:
        print(json.dumps(_as_json(copied), indent=2))  # noqa: T201
    return 0 if all(each.ok for each in copied) else 1


def _opened(arguments: argparse.Namespace, target: str, sessions: contextlib.ExitStack) -> Guest:
    session, guest = open_guest(argparse.Namespace(**{**vars(arguments), "target": target}))
    sessions.enter_context(session)
    return guest


def _copy(  # noqa: PLR0917
    arguments: argparse.Namespace,
    source: Guest | None,
    paths: list[str],
    target: Guest | None,
    destination: CopyEnd,
    several: bool,
) -> Copied:
    from vmconnect.cli.copy_bar import CopyBar

    guest = source or target
    assert guest is not None  # noqa: S101 (seen to by `run`)
    # A directory, whatever each group of sources by itself would make of it.
    path = destination.path.rstrip("/") + "/" if several else destination.path
    shown = sys.stderr.isatty() and not arguments.quiet
    with CopyBar(guest.machine) as bar:
        copied = guest.copy(
            source,
            paths,
            target,
            path,
            progress=bar if shown else None,
            on_failure=lambda failure: bar.say(str(failure.error)),
            options=_options(arguments),
            timeout=login_seconds(arguments),
        )
    if arguments.verbose:
        say(_account(guest.machine, copied))
    return copied


def _options(arguments: argparse.Namespace) -> Options:
    from vmconnect.direct.copy import WAYS, Options

    ways = (_WAYS[arguments.via],) if arguments.via else WAYS
    return Options(sync=arguments.sync, special=arguments.special, ways=ways)


def _account(machine: str, copied: Copied) -> str:
    rate = amount(int(copied.size / max(copied.seconds, 1e-3)))
    files = "1 file" if copied.files == 1 else f"{copied.files} files"
    failed = f", {copied.failed} failed" if copied.failed else ""
    return (
        f"{machine}: {files}, {amount(copied.size)} in {copied.seconds:.1f} s, {rate}/s, "
        f"by {copied.way}{failed}"
    )


def _as_json(copied: Iterable[Copied]) -> list[dict[str, object]]:
    return [
        {
            "files": each.files,
            "size": each.size,
            "seconds": round(each.seconds, 6),
            "way": each.way,
            "failed": each.failed,
            "failures": [_failure_as_json(failure) for failure in each.failures],
        }
        for each in copied
    ]


def _failure_as_json(failure: Failure) -> dict[str, object]:
    from vmconnect.direct.copy.copied import shown

    return {"machine": failure.machine, "path": shown(failure.path), "reason": failure.reason}
