"""``vmconnect record``: what a machine's VNC server sends, with times, in a file."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.cli.progress import Bar
from vmconnect.cli.quantity import amount, positive_seconds
from vmconnect.cli.voice import printable, say
from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectionLostError, DeadlineError
from vmconnect.session import connect

if TYPE_CHECKING:
    from vmconnect.vnc import Console
    from vmconnect.vnc.recording import Recorder

__all__ = ["configure", "run"]

# How often the progress is brought up to date (seconds).
_PULSE = 0.25


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "It goes on until Ctrl-C, the end of --time, or of the connection. vmconnect replay shows "
        "what was recorded. The file holds all that is seen on the screen and nothing of the "
        "login; nobody else may read it."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", type=Path, required=True, help="where to write it"
    )
    parser.add_argument("--force", action="store_true", help="overwrite FILE if it exists")
    parser.add_argument(
        "--time", metavar="SECONDS", type=positive_seconds, help="for how long (default: no end)"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="how long connecting may take (default: 10)",
    )
    add_console_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Record the session and return the exit code."""
    from vmconnect.vnc.recording import Recorder

    with (
        connect(arguments.target, arguments.timeout) as session,
        Recorder(arguments.output, overwrite=arguments.force) as recorder,
    ):
        console = open_console(
            session, arguments, arguments.timeout, recorder.write, reconnect=False
        )
        with contextlib.suppress(KeyboardInterrupt):
            _follow(console, recorder, arguments.time)
        reason = console.reason
        console.close()
        recorder.close()
        say(f"{recorder.path}: {recorder.seconds:.1f} s, {_account(console, recorder)}")
    if reason is not None:
        if not isinstance(reason, ConnectionLostError):
            raise reason
        say(str(reason))
    return 0


def _follow(console: Console, recorder: Recorder, limit: float | None) -> None:
    """Show how far it is, until the end of the time or of the connection."""
    deadline = Deadline(limit)
    with Bar(delay=0.0) as bar:
        while console.alive and not deadline.passed:
            bar.step(f"Recording {printable(console.machine)}: {_account(console, recorder)}")
            if limit is not None:
                bar.advance(round(limit - (deadline.remaining() or 0.0)), round(limit))
            with contextlib.suppress(DeadlineError):
                console.wait_for(lambda each: not each.alive, deadline.sooner(_PULSE))


def _account(console: Console, recorder: Recorder) -> str:
    return f"{console.framebuffer.generation} updates, {amount(recorder.bytes)}"
