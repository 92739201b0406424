"""``vmconnect screenshot``: a machine's screen as a PNG file."""

from __future__ import annotations

import argparse
from pathlib import Path

from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.deadline import Deadline
from vmconnect.errors import ResourceError
from vmconnect.session import Session, connect, hypervisor_of

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "It is taken through the machine's VNC console; where there is none, or with "
        "--hypervisor, the hypervisor takes it, and nobody has to log in."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "-o", dest="output", metavar="FILE.png", type=Path, required=True, help="where to write it"
    )
    parser.add_argument(
        "--hypervisor", action="store_true", help="let the hypervisor take it, not the console"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=10.0, help="how long it may take"
    )
    add_console_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and return the exit code."""
    with connect(arguments.target, arguments.timeout) as session:
        machine = session.machine
        if arguments.hypervisor or (machine.console is None and machine.hypervisor):
            _by_hypervisor(session, arguments)
            return 0
        console = open_console(session, arguments, arguments.timeout, reconnect=False)
        console.screenshot(arguments.output, timeout=arguments.timeout)
    return 0


def _by_hypervisor(session: Session, arguments: argparse.Namespace) -> None:
    with hypervisor_of(session.machine) as hypervisor:
        image = hypervisor.screenshot(session.machine, Deadline(arguments.timeout))
    try:
        arguments.output.write_bytes(image)
    except OSError as error:
        raise ResourceError(f"cannot write {arguments.output}: {error.strerror}") from error
