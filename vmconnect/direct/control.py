"""Reaching a command that runs in a guest from beside it: signals, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from vmconnect.direct.command import script
from vmconnect.errors import UnsupportedError, VmconnectError

__all__ = ["SIGNALS", "Control", "Reach", "signal_name"]

# fmt: off
SIGNALS = frozenset((
    "ABRT", "ALRM", "CONT", "HUP", "INT", "KILL", "PIPE", "QUIT", "STOP", "TERM", "TSTP", "TTIN",
    "TTOU", "USR1", "USR2", "WINCH",
))
# fmt: on
"""The signals that a command can be sent, by their names without ``SIG``."""

Reach = Callable[[Sequence[str], float], int]
"""Runs words in the guest, for at most so many seconds, beside the command and as its user;
returns their exit code."""

_SIGNAL_SECONDS = 10.0
_END_SECONDS = 15.0
# A command that was sent just now need not have begun.
_BEGIN_TRIES = 10
_BEGIN_SECONDS = 0.05


def signal_name(name: str) -> str:
    """Return the name that `SIGNALS` has for ``SIGINT``, ``int``; raises UnsupportedError."""
    bare = name.upper().removeprefix("SIG")
    if bare not in SIGNALS:
        raise UnsupportedError(
            f"{name!r} is no signal that can be sent", hint=f"there are {' '.join(sorted(SIGNALS))}"
        )
    return bare


class Control:
    """What can be done to one command from any thread, while another waits for it.

    SSH has a request for signals, which OpenSSH's server refuses where root is logged in, and which
    never reaches further than one process group. So the guest is asked by a second command, which
    finds the processes of the first by its mark.
    """

    def __init__(self, mark: str, reach: Reach, way: str = "main"):
        """``way`` is how `sweep.sh` is to pass signals on."""
        self._mark = mark
        self._reach = reach
        self._way = way
        self._close: Callable[[], object] | None = None
        self._hung_up = threading.Event()

    def attach(self, close: Callable[[], object]) -> None:
        """Take note of how the command's channel is closed."""
        self._close = close
        if self._hung_up.is_set():
            close()

    @property
    def hung_up(self) -> bool:
        """Whether `hang_up` was called."""
        return self._hung_up.is_set()

    def hang_up(self) -> None:
        """Let go of the command: whoever waits for it ends it with SIGHUP, and raises an error."""
        self._hung_up.set()
        if self._close is not None:
            self._close()

    def signal(self, name: str) -> bool:
        """Send a signal, such as ``INT``, to what the command is doing; whether it was there.

        It goes to the process group, as a Ctrl-C at a terminal would. Raises UnsupportedError, and
        what running a command does.
        """
        name = signal_name(name)
        for attempt in range(_BEGIN_TRIES):
            if attempt:
                time.sleep(_BEGIN_SECONDS)
            if self._sweep(self._way, name, _SIGNAL_SECONDS) == 0:
                return True
        return False

    def end(self, first: str = "TERM") -> bool:
        """End all that the command has started, whatever it ignores; whether that is certain.

        It gets the signal ``first``, and about a second later SIGKILL.
        """
        try:
            return self._sweep("end", first, _END_SECONDS) in {0, 1}
        except VmconnectError:
            return False

    def _sweep(self, what: str, name: str, seconds: float) -> int:
        words = ["sh", "-c", script("sweep.sh"), "vmconnect", self._mark, what, name]
        return self._reach(words, seconds)
