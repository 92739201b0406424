"""A shell, or any command, on a terminal of its own in a guest."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.direct.asciicast import AsciicastRecorder
from vmconnect.direct.library import paramiko
from vmconnect.direct.pump import Sink, drain
from vmconnect.direct.result import Result
from vmconnect.direct.ssh import SshConnection
from vmconnect.errors import (
    ClosedError,
    DeadlineError,
    GuestError,
    StateError,
    VmconnectError,
)
from vmconnect.operation import Operation

__all__ = ["KEPT_BYTES", "Shell"]

KEPT_BYTES = 1 << 20
"""How much of what a shell writes is kept for `read` and `wait_for`."""

# How long a sink that is being written to is waited for at the end (seconds).
_CLOSE_SECONDS = 1.0
_GONE = (OSError, EOFError, paramiko.SSHException)


class Shell(Closing):
    """What runs on a terminal in a guest; made by `Guest.shell`, usable from any thread.

    What it writes is kept until it is read, up to a MiB; then the guest has to wait for the
    reader. With an output sink it goes there as it comes, from a thread of the shell's, and
    nothing is kept. To leave a ``with`` block hangs up on it, as closing a terminal's window does.
    """

    def __init__(
        self,
        connection: SshConnection,
        channel: paramiko.Channel,
        argv: Sequence[str],
        *,
        operation: Operation,
        life: contextlib.AbstractContextManager[object],
        output: Sink | None = None,
        recorder: AsciicastRecorder | None = None,
    ):
        """Take over a channel that something has been started on, and ``recorder``.

        ``operation`` is what the shell is noted as, and ``life`` is left when it has ended.
        """
        self.machine = connection.machine
        self.argv = tuple(argv)
        self._connection = connection
        self._channel = channel
        self._output = output or self._keep
        self._recorder = recorder
        self._started = time.perf_counter()
        self._kept = bytearray()
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._droppers = 0
        self._sent = self._received = 0
        self._closed = self._over = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._on_end: list[Callable[[], object]] = []
        self._thread = threading.Thread(
            target=self._live, args=(operation, life), name="vmconnect-shell", daemon=True
        )
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs, as far as is known here."""
        return not self._over

    @property
    def result(self) -> Result | None:
        """How it ended; None while it runs, and if that will never be known."""
        return self._result

    def send(self, text: str | bytes, timeout: Deadline | float | None = None) -> None:
        r"""Type ``text``; the Enter key is ``\r``, Ctrl-C ``\x03``.

        Raises DeadlineError when the guest does not take it in time (some of it may have gone),
        StateError when the shell has ended, ClosedError, ConnectionLostError.
        """
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        with self._sending:
            self._check_running()
            self._channel.settimeout(Deadline.of(timeout).remaining())
            try:
                self._channel.sendall(data)
            except TimeoutError as error:
                raise DeadlineError(
                    "timed out while typing to the shell", machine=self.machine
                ) from error
            except _GONE as error:
                # Why it has gone is found by the thread that reads.
                self._wait_over(Deadline(None))
                self._check_running()
                raise self._connection.lost("the shell ran") from error
            self._sent += len(data)

    def read(self, timeout: Deadline | float | None = None) -> bytes:
        """Return what it has written and nobody has read; if nothing, wait for some.

        Empty when it has ended. Raises DeadlineError, ClosedError, ConnectionLostError.
        """
        deadline = Deadline.of(timeout)
        with self._changed:
            if not self._changed.wait_for(lambda: self._kept or self._over, deadline.remaining()):
                raise DeadlineError(
                    "timed out while waiting for the shell to write", machine=self.machine
                )
            if not self._kept:
                self._raise_error()
            return self._take(len(self._kept))

    def wait_for(
        self, text: str | bytes | re.Pattern[bytes], timeout: Deadline | float | None = None
    ) -> str:
        """Wait until it writes ``text``; return all that it wrote up to there, and with it.

        What comes after is left for the next call. The text is one as the shell writes it:
        colours, and whatever else is for a terminal, are in it (`Terminal` has one without). Up
        to a MiB is looked through; of more, what came last.

        Raises DeadlineError, with what has come still to be read, GuestError if it ends before,
        ClosedError, ConnectionLostError.
        """
        deadline = Deadline.of(timeout)
        pattern = text if isinstance(text, re.Pattern) else re.compile(re.escape(_encoded(text)))
        with self._dropping(), self._changed:
            while (match := pattern.search(self._kept)) is None:
                if self._over:
                    self._raise_error()
                    raise GuestError(
                        f"the shell ended before it wrote {text!r}", machine=self.machine
                    )
                if not self._changed.wait(deadline.remaining()) and deadline.passed:
                    raise DeadlineError(
                        f"timed out while waiting for the shell to write {text!r}",
                        machine=self.machine,
                    )
            end = match.end()
            del match  # It holds on to the buffer.
            return self._take(end).decode("utf-8", "replace")

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, in characters; what runs on it is told (SIGWINCH)."""
        if self._recorder is not None:
            self._recorder.resize(columns, rows)
        with contextlib.suppress(*_GONE):  # How it ended is told to who waits for it.
            self._channel.resize_pty(columns, rows)

    def wait(self, timeout: Deadline | float | None = None) -> Result:
        """Wait until it ends, and return how; of what it writes meanwhile the last is kept.

        ``stdout`` and ``stderr`` of the result are empty. Raises DeadlineError, ClosedError when
        it was hung up on, ConnectionLostError, and what the output sink raised.
        """
        with self._dropping():
            if not self._wait_over(Deadline.of(timeout)):
                raise DeadlineError("timed out while the shell ran", machine=self.machine)
        self._raise_error()
        assert self._result is not None  # noqa: S101 (else there is an error)
        return self._result

    def on_end(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when the shell has ended, from any thread; at once if it has."""
        with self._changed:
            if not self._over:
                self._on_end.append(listener)
                return
        listener()

    def close(self) -> None:
        """Hang up on it, if it still runs; again and again if one likes.

        Returns when it has been noted how it ended, unless the output sink does not return.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(*_GONE):
            self._channel.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def _live(self, noted: Operation, life: contextlib.AbstractContextManager[object]) -> None:
        """Take what the shell writes, until it ends; the thread."""
        try:
            with life:
                try:
                    drain(self._channel, self._receive, self._receive, Deadline(None))
                    self._channel.status_event.wait()
                    result = self._outcome()
                finally:
                    noted.sent, noted.received = self._sent, self._received
                noted.details |= {"exit_code": result.exit_code, "signal": result.signal}
                self._result = result
        except BaseException as error:  # noqa: BLE001 (raised to who waits for the end)
            self._error = error
        finally:
            with contextlib.suppress(*_GONE):
                self._channel.close()
            if self._recorder is not None:
                self._recorder.close()
            with self._changed:
                self._over = True
                self._changed.notify_all()
                listeners = tuple(self._on_end)
            for listener in listeners:
                listener()

    def _receive(self, data: bytes) -> None:
        self._received += len(data)
        if self._recorder is not None:
            self._recorder.write(data)
        self._output(data)

    def _keep(self, data: bytes) -> None:
        """Keep what came, when there is room for it."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._kept) < KEPT_BYTES or self._droppers or self._closed
            )
            self._kept += data
            # What comes at once is at most a window: it is not taken apart for the limit.
            if self._droppers and len(self._kept) > KEPT_BYTES:
                del self._kept[:-KEPT_BYTES]
            self._changed.notify_all()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let the oldest make room for the newest, instead of the shell waiting for a reader."""
        with self._changed:
            self._droppers += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._droppers -= 1

    def _take(self, size: int) -> bytes:
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        self._changed.notify_all()
        return taken

    def _outcome(self) -> Result:
        signal = self._connection.exit_signal(self._channel)
        if self._channel.exit_status < 0 and signal is None:
            if self._closed:
                raise ClosedError("the shell was hung up on", machine=self.machine)
            if not self._connection.alive:
                raise self._connection.lost("the shell ran")
            raise GuestError("the shell ended without an exit status", machine=self.machine)
        return Result(
            argv=self.argv,
            exit_code=None if signal else self._channel.exit_status,
            signal=signal,
            stdout=b"",
            stderr=b"",
            seconds=time.perf_counter() - self._started,
        )

    def _wait_over(self, deadline: Deadline) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._over, deadline.remaining())

    def _check_running(self) -> None:
        if self._over:
            self._raise_error()
            raise StateError("the shell has ended", machine=self.machine)

    def _raise_error(self) -> None:
        if self._error is not None:
            error = self._error
            raise error.with_machine(self.machine) if isinstance(error, VmconnectError) else error


def _encoded(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
