"""``vmconnect screenshot``: a machine's screen as a PNG file."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.session import connect

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "-o", dest="output", metavar="FILE.png", type=Path, required=True, help="where to write it"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=10.0, help="how long it may take"
    )
    add_console_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and return the exit code."""
    with connect(arguments.target, arguments.timeout) as session:
        console = open_console(session, arguments, arguments.timeout)
        console.screenshot(arguments.output, timeout=arguments.timeout)
    return 0
