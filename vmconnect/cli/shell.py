"""``vmconnect shell``: a shell in a guest, on this terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.cli.command_result import FAILED, exit_code
from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.voice import say
from vmconnect.errors import ClosedError

if TYPE_CHECKING:
    from vmconnect.direct import Guest

__all__ = ["arrange", "configure", "run", "run_on_terminal"]

_VALUED = {"-l", "-i", "-e", "--password-file", "--password-fd", "--wait", "--record"}

# What a program goes by to suit its terminal and its reader, as far as the guest accepts it.
_VARIABLES = ("LANG", "LANGUAGE", "COLORTERM", "NO_COLOR", "TERM_PROGRAM", "TERM_PROGRAM_VERSION")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "At the beginning of a line ~. hangs up, ~^Z suspends vmconnect, ~? lists such escapes. "
        "Standard input may be a file or a pipe: what is in it is typed, and then Ctrl-D. The exit "
        "code is the shell's, 128 + N when signal N ended it, and 255 when vmconnect itself failed."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    parser.add_argument(
        "-e",
        dest="escape",
        metavar="CHARACTER",
        type=_escape,
        default="~",
        help="the escape character, or none (default: ~)",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="record what is shown, as asciicast v2; FILE must not exist",
    )
    parser.add_argument(
        "argv",
        metavar="COMMAND",
        nargs="*",
        default=[],
        help="run this, each word one argument, and not the user's shell",
    )


def arrange(arguments: list[str]) -> list[str]:
    """Put the options first, and then the target, ``--`` and the guest's command.

    argparse would take the command for empty where an option follows the target.
    """
    begin = arguments.index("shell") + 1
    options = arguments[:begin]
    target: list[str] = []
    command: list[str] = []
    words = iter(arguments[begin:])
    for word in words:
        if word == "--":
            command = list(words)
        elif word in _VALUED:
            options += [word, *(each for each in [next(words, None)] if each is not None)]
        elif word.startswith("-") and word != "-":
            options.append(word)
        elif target:
            command = [word, *words]
        else:
            target = [word]
    return [*options, *target, "--", *command] if target else [*options, *command]


def run(arguments: argparse.Namespace) -> int:
    """Show the shell until it ends, and return its exit code."""
    session, guest = open_guest(arguments)
    with session:
        return run_on_terminal(
            guest,
            arguments.argv,
            escape=arguments.escape.encode() if arguments.escape != "none" else None,
            record=arguments.record,
        )


def run_on_terminal(
    guest: Guest,
    argv: list[str],
    *,
    escape: bytes | None = b"~",
    record: Path | None = None,
    no_input: bool = False,
) -> int:
    """Run a shell, or ``argv``, on this terminal and return its exit code."""
    from vmconnect.direct.asciicast import AsciicastRecorder
    from vmconnect.direct.terminal import DEFAULT_MODES, Terminal, encode_modes
    from vmconnect.ui.raw_terminal import RawTerminal
    from vmconnect.ui.shell_session import ShellScreen, ShellSession, TerminatedError

    ours = RawTerminal()
    attributes = ours.attributes
    columns, rows = ours.size
    theirs = Terminal(
        os.environ.get("TERM") or "dumb",
        columns,
        rows,
        DEFAULT_MODES if attributes is None else encode_modes(attributes),
    )
    screen = ShellScreen(ours)
    try:
        with contextlib.ExitStack() as stack:
            recorder = None
            if record is not None:
                recorder = stack.enter_context(
                    AsciicastRecorder(record, theirs, title=guest.machine)
                )
            shell = stack.enter_context(
                guest.shell(
                    argv,
                    terminal=theirs,
                    environment=_environment(),
                    output=screen.write,
                    recorder=recorder,
                )
            )
            session = ShellSession(
                shell, screen, ours, escape, size=(columns, rows), no_input=no_input
            )
            result = session.run()
    except ClosedError:
        if ours.shows and not ours.has_room():
            return FAILED  # Who hung up knows, and to tell would take for ever.
        raise
    except TerminatedError as error:
        # The terminal is as it was. What the signal does to others, it does to us now.
        signal.signal(error.number, signal.SIG_DFL)
        os.kill(os.getpid(), error.number)
        return FAILED
    finally:
        if record is not None and recorder is not None and recorder.error is not None:
            say(f"the recording is not whole: {recorder.error}")
    if result.signal:
        say(f"the {'command' if argv else 'shell'} was ended by SIG{result.signal}")
    return exit_code(result)


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith("LC_")
    }


def _escape(text: str) -> str:
    if text == "none" or (len(text) == 1 and text.isascii() and text.isprintable()):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither one character nor none")
