"""A shell in a guest, shown on the terminal that we run on, and typed to from there."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from vmconnect.direct.result import Result
from vmconnect.direct.shell import Shell
from vmconnect.errors import ClosedError, VmconnectError
from vmconnect.ui.escape import ESCAPES, EscapeParser, Order
from vmconnect.ui.raw_terminal import RawTerminal
from vmconnect.ui.screen_state import ScreenState

__all__ = ["ShellScreen", "ShellSession", "TerminatedError"]

_READ_BYTES = 1 << 16
# What Ctrl-D is on a terminal that nobody has told otherwise.
_END_OF_INPUT = b"\x04"
# A program may take the terminal over just as it is said that there is no more input: that is lost
# then, and said again (seconds).
_END_AGAIN_SECONDS = 0.2
# How long a stop takes to come, at most (seconds).
_STOP_SECONDS = 0.2
# Programs that draw the whole screen do so when its size has changed; two changes at once are none.
_REDRAW_SECONDS = 0.05
_WRITER_SECONDS = 0.5


class TerminatedError(BaseException):
    """A signal has ended us, or would have."""

    def __init__(self, number: signal.Signals):
        super().__init__(number.name)
        self.number = number


class ShellScreen:
    """Takes what the shell writes; give `write` as the shell's output.

    It waits until the terminal is ready for it, and lets go of what comes when all is over.
    """

    def __init__(self, terminal: RawTerminal):
        self._terminal = terminal
        self._state = ScreenState()
        self._ready = threading.Event()
        self._closed = False
        self._writing = threading.Lock()

    @property
    def changed(self) -> bool:
        """Whether something on it is not as a shell has it: a program draws there."""
        return bool(self._state.undo())

    def write(self, data: bytes) -> None:
        """Write what came; raises OSError."""
        self._ready.wait()
        with self._writing:
            if self._closed:
                return
            if self._terminal.shows:
                self._state.receive(data)
            self._terminal.write(data)

    def open(self) -> None:
        """Let through what waits."""
        self._ready.set()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to somebody else for the time of a block, as he expects it."""
        self._ready.clear()
        with self._still():
            self._put_right()
            yield
            with contextlib.suppress(OSError):
                self._terminal.write(self._state.redo(), patient=False)
        self._ready.set()

    def close(self) -> None:
        """Put right what is left changed, and take no more."""
        self._closed = True
        self._ready.set()
        with self._still():
            self._put_right()

    def _put_right(self) -> None:
        if not self._terminal.shows:
            return
        fresh = b"" if self._state.at_line_start else b"\r\n"
        with contextlib.suppress(OSError):
            self._terminal.write(self._state.undo() + fresh, patient=False)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Keep the writer out for the time of a block, unless the terminal takes nothing."""
        held = self._writing.acquire(timeout=_WRITER_SECONDS)
        try:
            yield
        finally:
            if held:
                self._writing.release()


class ShellSession:
    """Runs in the main thread until the shell ends, or the person leaves it."""

    def __init__(
        self,
        shell: Shell,
        screen: ShellScreen,
        terminal: RawTerminal,
        escape: bytes | None = b"~",
        *,
        size: tuple[int, int],
        no_input: bool = False,
    ):
        """``size``, in columns and rows, is what the shell was told.

        ``escape`` is for a person at a terminal; ``no_input`` leaves what is typed alone.
        """
        self._shell = shell
        self._screen = screen
        self._terminal = terminal
        self._character = escape if terminal.interactive else None
        self._escapes = EscapeParser(self._character)
        self._size = size
        self._listening = not no_input
        self._input_over = False
        self._line_ended = True
        self._leaving = False
        self._signalled: set[signal.Signals] = set()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def run(self) -> Result:
        """Show the shell and type to it, and return how it ended.

        The terminal is then as it was before, whatever happens. Raises what `Shell.wait` does
        (ClosedError if the person hung up), TerminatedError, KeyboardInterrupt, ResourceError.
        """
        try:
            with self._signals():
                self._terminal.enter_raw()
                self._shell.on_end(self._rouse)
                self._screen.open()
                self._resize()  # It may have changed while we logged in.
                while self._shell.alive and not self._leaving:
                    self._turn()
                return self._end()
        finally:
            self._leaving = True
            self._screen.close()
            self._terminal.leave_raw()

    def _end(self) -> Result:
        """Return how the shell ended, or hang up on it."""
        if self._shell.alive:
            self._shell.close()
        if self._shell.alive:  # It is writing to a terminal that takes nothing.
            raise ClosedError("the shell was hung up on", machine=self._shell.machine)
        return self._shell.wait()

    def _turn(self) -> None:
        """Wait for something to happen, and do what it takes."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._listening:
            poll.register(self._terminal.input, select.POLLIN)
        for descriptor, _ in poll.poll(_END_AGAIN_SECONDS * 1000 if self._input_over else None):
            if descriptor == self._wake:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            else:
                self._take_input()
        if self._input_over:
            self._type(_END_OF_INPUT)
        self._heed_signals()

    def _heed_signals(self) -> None:
        signalled, self._signalled = self._signalled, set()
        if signal.SIGTSTP in signalled:
            self._suspend()
        elif signal.SIGCONT in signalled:
            # Who had the terminal meanwhile has left it as he likes it.
            self._terminal.enter_raw()
            self._redraw()
        elif signal.SIGWINCH in signalled:
            self._resize()

    def _take_input(self) -> None:
        try:
            data = os.read(self._terminal.input, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self._terminal.interactive:
                raise TerminatedError(signal.SIGHUP)  # The terminal has gone.
            self._listening, self._input_over = False, True
            if not self._line_ended:
                data = b"\r"  # Else a shell with an editor would take the end for a key.
        for each in self._escapes.receive(data):
            if isinstance(each, bytes):
                self._type(each)
            elif each is Order.HANG_UP:
                self._leaving = True
                return
            elif each is Order.SUSPEND:
                self._suspend()
            else:
                self._help()

    def _type(self, data: bytes) -> None:
        self._line_ended = data.endswith((b"\r", b"\n"))
        try:
            self._shell.send(data)
        except VmconnectError:
            # It has ended in between; how, is told at the end.
            if self._shell.alive:
                raise

    def _resize(self) -> None:
        size = self._terminal.size
        if size != self._size:
            self._size = size
            self._shell.resize(*size)

    def _redraw(self) -> None:
        """Have a program that draws on the whole screen do so again."""
        self._size = columns, rows = self._terminal.size
        if self._screen.changed:
            self._shell.resize(columns, max(1, rows - 1))
            time.sleep(_REDRAW_SECONDS)
        self._shell.resize(columns, rows)

    def _suspend(self) -> None:
        """Stop, with all that was started with us, and go on when we are told to."""
        with self._screen.aside():
            self._terminal.leave_raw()
            ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._signalled.discard(signal.SIGCONT)
            os.kill(0, signal.SIGTSTP)
            # Where nobody could continue us the kernel does not stop us.
            until = time.monotonic() + _STOP_SECONDS
            while signal.SIGCONT not in self._signalled and time.monotonic() < until:
                time.sleep(_STOP_SECONDS / 20)
            self._signalled.discard(signal.SIGCONT)
            signal.signal(signal.SIGTSTP, ours)
            self._terminal.enter_raw()
        self._redraw()

    def _help(self) -> None:
        character = (self._character or b"").decode("latin-1")
        lines = ["", "At the beginning of a line:"]
        lines += [f"  {character}{key or character:<3} {use}" for key, use in ESCAPES.items()]
        with contextlib.suppress(OSError):
            os.write(2, "\r\n".join([*lines, ""]).encode())

    def _rouse(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.eventfd_write(self._wake, 1)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Hear signals ourselves for the time of a block."""
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            signal.SIGWINCH: self._note,
            signal.SIGCONT: self._note,
            signal.SIGTSTP: self._note,
            signal.SIGTERM: self._terminate,
            signal.SIGHUP: self._terminate,
        }
        before = {}
        try:
            for number, handler in handlers.items():
                # What whoever started us wants ignored stays so.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, handler)
            yield
        finally:
            self._leaving = True
            for number, handler_before in before.items():
                signal.signal(number, handler_before)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signalled.add(signal.Signals(number))
        self._rouse()

    def _terminate(self, number: int, _frame: FrameType | None) -> None:
        if not self._leaving:
            raise TerminatedError(signal.Signals(number))
