"""``vmconnect doctor``: which link of the chain to a machine is broken, and what mends it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmconnect.cli.password_options import add_password_options, given_password
from vmconnect.cli.voice import printable

if TYPE_CHECKING:
    from vmconnect.doctor import Check, Finding

__all__ = ["configure", "run"]

_COLOURS = {"ok": "32", "warning": "33", "broken": "31;1", "not tried": "2"}
_MARK = "→ "
_LEAST_COLUMNS, _MOST_COLUMNS = 60, 120


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "With a TARGET, every link from here to a picture of its screen and to a command in its "
        "guest is tried, in the ways of vmconnect console and exec; with none, this host is "
        "looked at. Nobody is asked for anything: no key is trusted that somebody would have to "
        "vouch for. What hangs on a broken link is not tried. The exit code is 0 if nothing is "
        "broken, else 1."
    )
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the machine")
    parser.add_argument("-l", dest="user", metavar="USER", help="log in to the guest as USER")
    parser.add_argument(
        "-i",
        dest="identity_files",
        metavar="KEYFILE",
        type=Path,
        action="append",
        default=[],
        help="log in to the guest with this private key, and with no other",
    )
    add_password_options(parser, "the VNC server's password")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine, print what was found, and return the exit code."""
    if arguments.target is None:
        from vmconnect.doctor import HOST, Host

        return _report("this host", HOST, Host(), as_json=arguments.json)
    from vmconnect.doctor import CHAIN, Patient

    patient = Patient(
        arguments.target, arguments.user, arguments.identity_files, given_password(arguments)
    )
    try:
        return _report(arguments.target, CHAIN, patient, as_json=arguments.json)
    finally:
        patient.close()


def _report(name: str, checks: Sequence[Check[Any]], subject: Any, *, as_json: bool) -> int:
    from vmconnect.doctor import Outcome, examine

    if as_json:
        findings = list(examine(checks, subject))
    else:
        paper = _Paper(name, max(len(each.name) for each in checks))
        findings = []
        for finding in examine(checks, subject, paper.begin):
            paper.take(finding)
            findings.append(finding)
        paper.conclude(findings)
    well = all(finding.outcome is not Outcome.BROKEN for finding in findings)
    if as_json:
        told = {"subject": name, "ok": well, "checks": [_as_json(each) for each in findings]}
        print(json.dumps(told, indent=2))  # noqa: T201
    return 0 if well else 1


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "tries": finding.tries,
        "outcome": finding.outcome.value,
        "account": finding.account,
        "remedy": finding.remedy,
        "seconds": round(finding.seconds, 3),
    }


class _Paper:
    """What is written for a person, link by link."""

    def __init__(self, name: str, width: int):
        self._width = width
        self._live = sys.stdout.isatty()
        self._coloured = (
            self._live and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        columns = shutil.get_terminal_size().columns if self._live else _MOST_COLUMNS
        self._columns = max(_LEAST_COLUMNS, min(_MOST_COLUMNS, columns))
        self._write(f"{printable(name)}\n")

    def begin(self, check: Check[Any]) -> None:
        """Say what is being tried, until it has been."""
        if self._live:
            self._write(f"  {check.name.ljust(self._width)}  …")

    def take(self, finding: Finding) -> None:
        """Write what came of a check."""
        word = finding.outcome.value
        head = f"  {finding.check.ljust(self._width)}  {word.ljust(len('not tried'))}  "
        indent = " " * len(head)
        lines = list(self._wrapped(finding.account, indent, indent))
        lines[0] = lines[0].replace(indent, head.replace(word, self._colour(word), 1), 1)
        if finding.remedy:
            first, rest = indent + _MARK, indent + " " * len(_MARK)
            for number, line in enumerate(finding.remedy.splitlines()):
                lines += self._wrapped(line, rest if number else first, rest)
        self._write(("\r\x1b[K" if self._live else "") + "\n".join(lines) + "\n")

    def conclude(self, findings: Sequence[Finding]) -> None:
        """Write the last line."""
        counts = {word: sum(each.outcome.value == word for each in findings) for word in _COLOURS}
        ill = [each.check for each in findings if each.outcome.value == "broken"]
        told = f"broken: {', '.join(ill)}" if ill else "nothing is broken"
        if counts["warning"]:
            told += f"; {counts['warning']} warning{'s' * (counts['warning'] > 1)}"
        self._write(f"{told}\n")

    def _wrapped(self, text: str, first: str, rest: str) -> Iterator[str]:
        """Give lines that fit; what is indented already, as a file's text, is left as it is."""
        if text.startswith("    ") or not text:
            yield (rest + printable(text)).rstrip()
            return
        yield from textwrap.wrap(
            printable(text),
            self._columns,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _colour(self, word: str) -> str:
        return f"\x1b[{_COLOURS[word]}m{word}\x1b[0m" if self._coloured else word

    @staticmethod
    def _write(text: str) -> None:
        print(text, end="", flush=True)  # noqa: T201
