"""``vmconnect console``: a window on a machine's screen."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.channel import ChannelState, StateChange
from vmconnect.cli.console_login import add_console_options, open_console
from vmconnect.cli.voice import say
from vmconnect.errors import ConnectError, MachineNotFoundError, MachineOffError
from vmconnect.session import Session, connect

if TYPE_CHECKING:
    from vmconnect.vnc import Console

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "The window stays when the machine is turned off, restarted, or cannot be reached: it "
        "says so, and shows the screen again from the first firmware line on."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="record what is shown, for vmconnect replay; FILE must not exist",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for a machine that is not there, or does not answer yet",
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
        session = stack.enter_context(_connect(arguments))
        console = _open(session, arguments, tap)
        if tap is not None:
            console.on_state(lambda change: _tell_of_end(arguments.record, change))
        stack.enter_context(Window(console)).run()
    return 0


def _connect(arguments: argparse.Namespace) -> Session:
    if not arguments.wait:
        return connect(arguments.target)
    with contextlib.suppress(MachineNotFoundError, ConnectError):
        return connect(arguments.target)
    say(f"waiting for {arguments.target}")
    return connect(arguments.target, None, wait=True)


def _open(
    session: Session, arguments: argparse.Namespace, tap: Callable[[memoryview], object] | None
) -> Console:
    """Attach to the console: now, or, if the machine is off, when it is on."""
    if not arguments.wait:
        with contextlib.suppress(MachineOffError):
            return open_console(session, arguments, tap=tap)
    return open_console(session, arguments, tap=tap, at_once=True)


def _tell_of_end(path: Path, change: StateChange) -> None:
    """Say that the recording ends with its connection, if the window does not."""
    if change.before is ChannelState.READY and change.after is ChannelState.LOST:
        say(f"{path} ends here: {change.reason}")
