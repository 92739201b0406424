"""``vmconnect console``: a window on a machine's screen."""

from __future__ import annotations

import argparse

from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.session import connect

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_console_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the window until it is closed, and return the exit code."""
    from vmconnect.ui.window import Window, require_display

    require_display()
    with connect(arguments.target) as session, Window(open_console(session, arguments)) as window:
        window.run()
    return 0
