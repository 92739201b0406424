"""``vmconnect journal``: what was done with machines from here, by whom, and with what result."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from vmconnect.cli.quantity import amount
from vmconnect.cli.table import print_row, print_table, widths_of
from vmconnect.cli.voice import printable
from vmconnect.hypervisor.lookup import is_meant
from vmconnect.journal import Entry, JournalFile

__all__ = ["configure", "run"]

_HEADS = ("WHEN", "WHO", "MACHINE", "WHAT", "RESULT", "TOOK", "DETAILS")
_LAST = 50
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "What is noted: consoles and guests that were opened and closed, commands that were run "
        "(the program and how many arguments it had, no more unless the settings say so), files "
        "that were copied, what a hypervisor was told to do. Contents and keystrokes are not. "
        "VMCONNECT_JOURNAL=0, or enabled = false in the section [journal] of "
        "$XDG_CONFIG_HOME/vmconnect/settings.toml, turns it off; arguments = true there notes "
        "whole commands. It lies in $XDG_STATE_HOME/vmconnect/journal.jsonl."
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="only this machine, or these: a pattern of names",
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=_since,
        help="only what was later: 30m, 12h, 7d ago, or than 2026-11-25 or 2026-11-25T14:06",
    )
    parser.add_argument(
        "-n",
        dest="last",
        metavar="N",
        type=_count,
        help=f"at most the last N (default: {_LAST}, with --since all)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.add_argument("--follow", action="store_true", help="go on, and print what is noted")


def run(arguments: argparse.Namespace) -> int:
    """Print the entries and return the exit code."""
    journal = JournalFile()
    wanted = _filter(arguments.target, arguments.since)
    last = arguments.last
    if last is None and arguments.since is None:
        last = _LAST
    if arguments.follow:
        entries, news = journal.entries_and_news(wanted, last)
    else:
        entries, news = journal.entries(wanted, last), iter(())
    if arguments.json:
        for entry in entries:
            _print_json(entry)
        for entry in news:
            _print_json(entry)
        return 0
    rows = [_HEADS, *map(_row, entries)]
    print_table(rows)
    print(end="", flush=True)  # noqa: T201
    widths = widths_of(rows)
    for entry in news:
        print_row(_row(entry), widths)
        print(end="", flush=True)  # noqa: T201
    return 0


def _print_json(entry: Entry) -> None:
    print(json.dumps(entry.as_json()), flush=True)  # noqa: T201


def _filter(target: str | None, since: str | None) -> Callable[[Entry], bool]:
    """Return what picks the entries: those of a machine, by any of its names, and late enough."""

    def wanted(entry: Entry) -> bool:
        if since is not None and entry.time < since:
            return False
        if target is None or target == entry.target:
            return True
        return is_meant(target, entry.machine, entry.uuid)

    return wanted


def _row(entry: Entry) -> tuple[str, ...]:
    who = entry.user or str("-" if entry.uid is None else entry.uid)
    if entry.sudo_user and entry.sudo_user != entry.user:
        who = f"{entry.sudo_user} as {who}"
    cells = (
        _local(entry.time),
        who,
        entry.machine,
        entry.what,
        entry.error or "ok",
        "-" if entry.seconds is None else _duration(entry.seconds),
        entry.message or _details(entry),
    )
    return tuple(map(printable, cells))


def _local(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text


def _duration(seconds: float) -> str:
    """Return a time as people read it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(timedelta(seconds=round(seconds)))


def _details(entry: Entry) -> str:
    """Return what else is known of what was done, the best known things in plain words."""
    left = dict(entry.details)
    words = [text for keys, say in _SAYINGS if (text := _said(left, keys, say))]
    words += [f"{key} {_plain(value)}" for key, value in left.items()]
    words += [f"sent {amount(entry.sent)}"] if entry.sent else []
    words += [f"received {amount(entry.received)}"] if entry.received else []
    return ", ".join(words)


def _said(details: dict[str, Any], keys: Sequence[str], say: Callable[..., str]) -> str:
    """Take the details of those names, if there are all, and return them in words."""
    if not all(key in details for key in keys):
        return ""
    return say(*(details.pop(key) for key in keys))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_SAYINGS: tuple[tuple[tuple[str, ...], Callable[..., str]], ...] = (
    (("program", "arguments"), lambda program, count: f"{program} …" if count else _plain(program)),
    (
        ("argv",),
        lambda argv: shlex.join(map(str, argv)) if isinstance(argv, list) else _plain(argv),
    ),
    (("exit_code",), lambda code: f"exit code {_plain(code)}" if code else ""),
    (("signal",), lambda name: f"ended by SIG{name}"),
    (("local", "remote"), lambda local, remote: f"{local}, in the guest {remote}"),
    (
        ("source", "from", "target", "to"),
        lambda source, path, target, place: f"{source}:{path} to {target}:{place}",
    ),
    (("user", "method"), lambda user, method: f"as {user} by {method}"),
    (("login",), lambda name: f"login {name}"),
    (("encrypted",), lambda encrypted: "encrypted" if encrypted else ""),
    (("again",), lambda _again: "again"),
)


def _since(text: str) -> str:
    """Read a moment, for argparse; return it as the journal has times."""
    number, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS:
            moment = datetime.now(UTC) - timedelta(**{_UNITS[unit]: float(number)})
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries")
    return int(text)
