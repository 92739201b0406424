"""Signals of this process that reach the command in the guest."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from vmconnect.errors import VmconnectError

__all__ = ["FORWARDED", "Forwarding", "pass_on"]

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Forwarding:
    """Passes signals on while a command runs.

    What comes before it has started does here what it would have done. A second one of the same
    kind that asks for the end is not passed on: it ends the wait, and the command with it.
    """

    def __init__(self) -> None:
        self._send: Callable[[str], object] | None = None
        self._passed_on: set[int] = set()

    @property
    def interrupted(self) -> bool:
        """Whether a Ctrl-C was passed on."""
        return signal.SIGINT in self._passed_on

    def start(self, send: Callable[[str], object]) -> None:
        """From now on pass them on by ``send``, which takes a name without ``SIG``."""
        self._send = send

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals within the ``with`` block, but those that whoever started us ignores."""
        before = {
            number: signal.signal(number, self._on_signal)
            for number in FORWARDED
            if signal.getsignal(number) in _DEFAULTS
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        lasting = number not in {signal.SIGUSR1, signal.SIGUSR2}
        if self._send is None or (lasting and number in self._passed_on):
            if number != signal.SIGINT and self._send is None:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            raise KeyboardInterrupt
        self._passed_on.add(number)
        pass_on(self._send, signal.Signals(number).name.removeprefix("SIG"))


def pass_on(send: Callable[[str], object], name: str) -> None:
    """Send a signal in a thread of its own: the guest may take its time, or not answer."""

    def run() -> None:
        with contextlib.suppress(VmconnectError):
            send(name)

    threading.Thread(target=run, name="vmconnect-signal", daemon=True).start()
