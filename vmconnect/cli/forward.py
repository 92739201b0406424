"""``vmconnect forward``: ports and sockets of this side and of a guest's, joined."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vmconnect.cli.login import add_login_options, open_guest
from vmconnect.cli.voice import printable, say
from vmconnect.errors import TargetError, VmconnectError

if TYPE_CHECKING:
    from types import FrameType

    from vmconnect.direct import Guest
    from vmconnect.direct.forward import Forward

__all__ = ["configure", "run"]

# The same trouble is told once in so long.
_REPEAT_SECONDS = 5.0
# How long the end of all forwards may go unnoticed.
_LOOK_SECONDS = 1.0
_KINDS = {
    "L": ("SPEC", "listen here, and connect from within the guest"),
    "R": ("SPEC", "listen in the guest, and connect from here"),
    "D": ("[BIND:]PORT", "listen here for SOCKS, and connect from within the guest"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.epilog = (
        "A SPEC is as ssh's: [BIND:]PORT:HOST:HOSTPORT, or with a /PATH of a UNIX socket in place "
        "of either end. Without BIND it listens on loopback alone. PORT 0 is any that is free. "
        "It goes on until Ctrl-C, and takes up again when the guest comes back."
    )
    parser.add_argument("target", metavar="TARGET", help="the machine")
    add_login_options(parser)
    for letter, (metavar, text) in _KINDS.items():
        parser.add_argument(
            f"-{letter}", dest=letter, metavar=metavar, action="append", default=[], help=text
        )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each, once it listens"
    )


def run(arguments: argparse.Namespace) -> int:
    """Forward until an end is wanted, and return the exit code."""
    from vmconnect.direct.forward import ForwardKind, ForwardSpec

    specs = [
        ForwardSpec.read(text, ForwardKind(letter))
        for letter in _KINDS
        for text in getattr(arguments, letter)
    ]
    if not specs:
        raise TargetError("nothing is to be forwarded", hint="say -L, -R or -D, as to ssh")
    session, guest = open_guest(arguments)
    enough = threading.Event()
    with session, contextlib.ExitStack() as open_ones, _ended_by_signals(enough):
        trouble = _Trouble()
        forwards = [
            open_ones.enter_context(guest.forward(spec, spec.kind, on_trouble=trouble.tell))
            for spec in specs
        ]
        for forward in forwards:
            _announce(forward, guest, as_json=arguments.json)
        sys.stdout.flush()
        while not enough.wait(_LOOK_SECONDS) and not all(each.closed for each in forwards):
            pass
        if not guest.alive and guest.reason is not None:
            raise guest.reason
    return 0


def _announce(forward: Forward, guest: Guest, *, as_json: bool) -> None:
    spec = forward.spec
    target = str(spec.target) if spec.target is not None else None
    if as_json:
        line = json.dumps(
            {
                "machine": guest.machine,
                "kind": spec.kind.name.lower(),
                "listens": str(forward.bound),
                "port": getattr(forward.bound, "port", None),
                "path": getattr(forward.bound, "path", None),
                "target": target,
            }
        )
    else:
        where = "in the guest on " if spec.kind.value == "R" else "on "
        to = f"for {target}" if target else "for SOCKS"
        line = printable(f"{guest.machine}: listens {where}{forward.bound} {to}")
    print(line)  # noqa: T201


@contextlib.contextmanager
def _ended_by_signals(enough: threading.Event) -> Iterator[None]:
    """Let Ctrl-C, and being told to end, be the proper end of a ``with`` block."""

    def end(_number: int, _frame: FrameType | None) -> None:
        enough.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Trouble:
    """Tells of connections that could not be made, and of the same trouble not too often."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def tell(self, error: VmconnectError) -> None:
        import time

        text, now = str(error), time.monotonic()
        if now - self._told.get(text, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._told = {
                known: at for known, at in self._told.items() if now - at < _REPEAT_SECONDS
            }
            self._told[text] = now
            say(text)
