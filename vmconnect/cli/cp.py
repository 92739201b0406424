"""``vmconnect cp``: copy files and directories into guests, out of them, and between them."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vmconnect.cli.copy_ends import CopyEnd, read_end
from vmconnect.cli.login import add_login_options, login_seconds, open_guest
from vmconnect.cli.quantity import amount
from vmconnect.cli.voice import say
from vmconnect.errors import ConnectError, TargetError, UnsupportedError, VmconnectError
from vmconnect.session import connect

if TYPE_CHECKING:
    from vmconnect.direct import Guest
    from vmconnect.direct.agent import AgentFiles
    from vmconnect.direct.copy import Copied, Failure, Options

__all__ = ["configure", "run"]

_WAYS = {"vsock": "vsock", "ssh": "SSH", "sftp": "SFTP"}
_AGENT = "agent"
_AGENT_SECONDS = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "An end is PATH here, or TARGET:PATH in a guest; [TARGET]:PATH if the target has a colon "
        "or a slash. Patterns in a guest's path are quoted: 'web01:/var/log/*.log'. Directories "
        "are copied whole; modes, times, links, holes and extended attributes are kept. A file "
        "gets its name only when it is whole, and a copy that was cut goes on when it is said "
        "again. Where no SSH server can be reached, the guest agent copies single files, as root. "
        "The exit code is 1 when a file could not be copied; the others are."
    )
    parser.add_argument("sources", metavar="SRC", nargs="+", help="what to copy")
    parser.add_argument("destination", metavar="DST", help="where to; a directory for many")
    add_login_options(parser)
    parser.add_argument("--sync", action="store_true", help="only what differs in size or time")
    parser.add_argument(
        "--special", action="store_true", help="FIFOs and devices too; else they are refused"
    )
    parser.add_argument(
        "--via",
        choices=sorted([*_WAYS, _AGENT]),
        help="by this way alone (default: the best there is)",
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
    local = [each.path for each in sources if each.target is None]
    if destination.target is None and local:
        raise TargetError(
            f"neither end is in a guest: {local[0]!r} and {destination.path!r}",
            hint="write TARGET:PATH; for copies on this host, say cp",
        )
    groups: dict[str | None, list[str]] = {}
    for each in sources:
        groups.setdefault(each.target, []).append(each.path)
    with contextlib.ExitStack() as sessions:
        guests: dict[str | None, Guest | AgentFiles | None] = {None: None}
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


def _opened(
    arguments: argparse.Namespace, target: str, sessions: contextlib.ExitStack
) -> Guest | AgentFiles:
    if arguments.via == _AGENT:
        if _asks_for_a_login(arguments):
            raise UnsupportedError("a guest agent copies files, all of each, and as itself")
        return _agent_of(target, sessions)
    try:
        session, guest = open_guest(argparse.Namespace(**{**vars(arguments), "target": target}))
    except (ConnectError, UnsupportedError) as error:
        if arguments.via or _asks_for_a_login(arguments):
            raise
        try:
            files = _agent_of(target, sessions, error)
        except VmconnectError:
            raise error from error.__cause__  # It says better what is to be done.
        say(f"{files.machine}: {error.message}; copying by its guest agent, as {files.user}")
        return files
    sessions.enter_context(session)
    return guest


def _asks_for_a_login(arguments: argparse.Namespace) -> bool:
    """Return whether something is asked for that only a login gives."""
    login = arguments.user not in {None, "root"} or arguments.identity_files
    return bool(login or arguments.sync or arguments.special)


def _agent_of(
    target: str, sessions: contextlib.ExitStack, reason: VmconnectError | None = None
) -> AgentFiles:
    """Return the files of a machine by its guest agent; ``reason`` is why not by SSH."""
    from vmconnect.direct.agent import AgentFiles

    session = sessions.enter_context(connect(target))
    if isinstance(reason, UnsupportedError) and session.machine.guest is not None:
        raise reason  # There is an SSH server; it is something else that is not supported.
    return AgentFiles(sessions.enter_context(session.agent(_AGENT_SECONDS)))


def _copy(  # noqa: PLR0917
    arguments: argparse.Namespace,
    source: Guest | AgentFiles | None,
    paths: list[str],
    target: Guest | AgentFiles | None,
    destination: CopyEnd,
    several: bool,
) -> Copied:
    from vmconnect.cli.copy_bar import CopyBar

    end = source or target
    assert end is not None  # noqa: S101 (seen to by `run`)
    # A directory, whatever each group of sources by itself would make of it.
    path = destination.path.rstrip("/") + "/" if several else destination.path
    shown = sys.stderr.isatty() and not arguments.quiet
    with CopyBar(end.machine) as bar:
        copied = _copied(
            arguments,
            source,
            paths,
            target,
            path,
            progress=bar if shown else None,
            on_failure=lambda failure: bar.say(str(failure.error)),
        )
    if arguments.verbose:
        say(_account(end.machine, copied))
    return copied


def _copied(
    arguments: argparse.Namespace,
    source: Guest | AgentFiles | None,
    paths: list[str],
    target: Guest | AgentFiles | None,
    path: str,
    **shown: Any,
) -> Copied:
    from vmconnect.direct import Guest  # It is imported already, as agents are only at need.

    if isinstance(source, Guest | None) and isinstance(target, Guest | None):
        guest = source or target
        assert guest is not None  # noqa: S101 (seen to by `run`)
        return guest.copy(
            source,
            paths,
            target,
            path,
            options=_options(arguments),
            timeout=login_seconds(arguments),
            **shown,
        )
    if target is None and not isinstance(source, Guest | None):
        return source.get(paths, path, **shown)
    if source is None and not isinstance(target, Guest | None):
        return target.put(paths, path, **shown)
    raise UnsupportedError(
        "a guest agent copies to and from this host alone",
        hint="copy it to here, and on from here",
    )


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
