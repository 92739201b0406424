"""Commands on many machines: their options, and the course of one."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from vmconnect.cli.login import arrival, login_seconds
from vmconnect.cli.outputs import Grouped, JsonLines, Output, Prefixed
from vmconnect.cli.password_options import given_password
from vmconnect.cli.questions import Questions
from vmconnect.cli.screen import Screen
from vmconnect.cli.trust_question import ask_trust
from vmconnect.cli.verdicts import Summary
from vmconnect.cli.voice import line
from vmconnect.errors import ResourceError
from vmconnect.hypervisor import Machine
from vmconnect.secret import Secret
from vmconnect.session import PublicKey, Sweep, ask_secret
from vmconnect.session.fleet import THROTTLE, Fleet
from vmconnect.session.selection import Selection, select

if TYPE_CHECKING:
    from vmconnect.direct import Guest, Result

__all__ = ["EXIT_CODES", "add_options", "sweep"]

EXIT_CODES = (
    "On many machines the exit code is 0 if the command gave 0 on all, 1 if it gave another on "
    "some, 255 if it could not be run on some."
)

_READ_BYTES = 1 << 18
# How soon it is seen that a question waits, or who is at work.
_REFRESH_SECONDS = 0.2

Streams = dict[str, Any]
Start = Callable[[Fleet, Streams], "Sweep[Result]"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which machines, and how their output is shown."""
    parser.add_argument(
        "-m",
        dest="machines",
        metavar="MACHINES",
        action="append",
        default=[],
        help="these machines: a target, a pattern such as 'web*', or @GROUP; may be repeated",
    )
    parser.add_argument(
        "--all", dest="everything", action="store_true", help="all that run and can be reached"
    )
    parser.add_argument(
        "--except",
        dest="without",
        metavar="MACHINES",
        action="append",
        default=[],
        help="but not these",
    )
    parser.add_argument(
        "--throttle",
        metavar="N",
        type=_count,
        default=THROTTLE,
        help=f"on how many at once (default: {THROTTLE})",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--group",
        action="store_true",
        help="print all of a machine's output together, when its command is over",
    )
    shape.add_argument(
        "--json", action="store_true", help="print a JSON object for each machine, one a line"
    )
    parser.add_argument(
        "--stdin", action="store_true", help="give all of standard input to each of them"
    )
    parser.add_argument(
        "-q", dest="quiet", action="store_true", help="print no table of results at the end"
    )


def sweep(arguments: argparse.Namespace, machines: list[str], start: Start) -> int:
    """Begin the work on all machines that are meant, show it, and return the exit code."""
    chosen = select(machines, everything=arguments.everything, without=arguments.without)
    started = time.monotonic()
    summary = Summary()
    with Screen(len(chosen.machines) + len(chosen.errors)) as screen:
        questions = Questions(screen)
        fleet = _fleet(arguments, chosen, screen, questions)
        output = _output(arguments, screen, chosen)
        streams: Streams = {"stdout": output.stdout, "stderr": output.stderr}
        if arguments.stdin:
            streams["stdin"] = _Input().again
        if arguments.timeout is not None:
            streams["timeout"] = arguments.timeout
        with start(fleet, streams) as sweep:
            quiet = arguments.quiet and not arguments.json
            _follow(sweep, questions, screen, output, summary, quiet=quiet)
    if not (arguments.quiet or arguments.json):
        skipped = [machine.name for machine in chosen.skipped]
        summary.print(skipped, time.monotonic() - started)
    return summary.exit_code


def _follow(
    sweep: Sweep[Result],
    questions: Questions,
    screen: Screen,
    output: Output,
    summary: Summary,
    *,
    quiet: bool,
) -> None:
    """Show what comes, until all has; Ctrl-C ends what goes on, and what came of it is shown."""
    while True:
        try:
            questions.ask()
            screen.update(summary.total, summary.bad, sweep.running)
            outcome = sweep.next(_REFRESH_SECONDS)
        except KeyboardInterrupt:
            if summary.interrupted:
                raise
            summary.interrupted = True
            questions.close()
            sweep.cancel()
            continue
        if screen.left:
            raise BrokenPipeError
        if outcome is None:
            if sweep.over:
                return
            continue
        output.finish(outcome)
        summary.add(outcome)
        if quiet and outcome.error is not None:
            screen.write(2, line(str(outcome.error)).encode())


def _fleet(
    arguments: argparse.Namespace, chosen: Selection, screen: Screen, questions: Questions
) -> Fleet:
    secret = given_password(arguments)

    def ask(prompt: str) -> Secret | None:
        return questions.put(lambda: ask_secret(prompt))

    def accept(machine: Machine, key: PublicKey) -> bool:
        return arguments.accept_new_host_key or questions.put(
            lambda: ask_trust(machine.name, "host key", key)
        )

    def tell(label: str, guest: Guest) -> None:
        screen.write(2, line(arrival(label, guest, arguments)).encode())

    return Fleet(
        chosen,
        throttle=arguments.throttle,
        user=arguments.user,
        identity_files=arguments.identity_files,
        password=None if arguments.identity_files else secret,
        passphrase=secret if arguments.identity_files else None,
        accept_host_key=accept,
        ask=ask,
        login_timeout=login_seconds(arguments),
        wait=arguments.wait > 0,
        on_login=tell if arguments.verbose else None,
    )


def _output(arguments: argparse.Namespace, screen: Screen, chosen: Selection) -> Output:
    if arguments.json:
        return JsonLines(screen)
    if arguments.group:
        return Grouped(screen)
    return Prefixed(screen, chosen.labels.values())


class _Input:
    """Standard input, read once to its end, to be given to each of many."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (as long as we are)
        try:
            while data := os.read(0, _READ_BYTES):
                self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise ResourceError(f"cannot keep standard input: {error.strerror}") from error

    def again(self) -> Iterator[bytes]:
        """Give it from its beginning."""
        place = 0
        while data := os.pread(self._file.fileno(), _READ_BYTES, place):
            place += len(data)
            yield data


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 10000")
    return int(text)
