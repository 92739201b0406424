"""``vmconnect console``: a window on a machine's screen."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.session import connect

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="record what is shown, for vmconnect replay; FILE must not exist",
    )
    add_console_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the window until it is closed, and return the exit code."""
    from vmconnect.ui.window import Window, require_display

    require_display()
    with contextlib.ExitStack() as stack:
        tap = None
        if arguments.record is not None:
            from vmconnect.vnc.recording import Recorder

            tap = stack.enter_context(Recorder(arguments.record)).write
        session = stack.enter_context(connect(arguments.target))
        window = stack.enter_context(Window(open_console(session, arguments, tap=tap)))
        window.run()
    return 0
