"""A command that runs in a guest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.direct.command import Command
from vmconnect.direct.control import Control
from vmconnect.direct.library import paramiko
from vmconnect.direct.pump import Sink, drain, end_input, feed, keeping
from vmconnect.direct.result import Result
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    GuestError,
    VmconnectError,
)

__all__ = ["Conclude", "Output", "Process"]

Conclude = Callable[[paramiko.Channel], tuple[int | None, str | None]]
"""Returns exit code and signal of a command whose channel has ended, or raises why there is
neither."""

_FEED_BYTES = 1 << 18
_READ_BYTES = 1 << 16
_GREET_SECONDS = 60.0
_LEFT_HINT = "what it has started may still run there"


class Process(Closing):
    """A command that runs in the guest; made by `Guest.start`.

    Its outputs are read by `stdout` and `stderr`, its input is written by `write`. Who reads one of
    them alone may stop the command: together they hold at most 4 MiB that nobody has read. As a
    context manager it ends the command, and all that it has started, if it still runs.
    """

    def __init__(
        self,
        command: Command,
        channel: paramiko.Channel,
        control: Control,
        machine: str,
        conclude: Conclude,
        *,
        settled: Callable[[], object] = lambda: None,
    ):
        """``settled`` is called when nobody waits for the command any more."""
        self.argv = command.argv
        self.machine = machine
        self.control = control
        self._command = command
        self._channel = channel
        self._conclude = conclude
        self._settled = settled
        self._started = time.perf_counter()
        self._early = b""  # of standard error, read with the preface
        self._result: Result | None = None
        self.stdout = Output(channel.recv, self)
        self.stderr = Output(self._read_error, self)

    def greet(self, deadline: Deadline) -> None:
        """Send what the command starts with, and hear that it has started.

        Raises GuestError when it cannot, DeadlineError, ConnectionLostError.
        """
        if not self._command.header:
            return
        preface = self._command.preface()
        deadline = deadline.sooner(_GREET_SECONDS)
        try:
            with self.translated("starting the command", deadline):
                # A refusal ends the input before it is read.
                with contextlib.suppress(OSError):
                    self._channel.sendall(self._command.header)
                while not preface.done:
                    data = self._channel.recv_stderr(_READ_BYTES)
                    if data:
                        preface.feed(data)
                    else:
                        if not self._channel.eof_received:
                            self._conclude(self._channel)
                        preface.end()
            self._early = preface.rest
        except BaseException:
            self._channel.close()
            raise

    def finish(
        self,
        stdin: bytes | Iterable[bytes] | None,
        stdout: Sink | None,
        stderr: Sink | None,
        deadline: Deadline,
    ) -> Result:
        """Feed it, take what it writes, wait for its end; what raises here ends it first."""
        kept_out, kept_err = bytearray(), bytearray()
        stderr = stderr or keeping(kept_err)
        try:
            if stdin is None:
                end_input(self._channel)
            else:
                feed(self._channel, _chunks(stdin) if isinstance(stdin, bytes) else stdin)
            if self._early:
                stderr(self._early)
                self._early = b""
            drain(self._channel, stdout or keeping(kept_out), stderr, deadline)
            self._channel.status_event.wait(deadline.remaining())
            deadline.check("waiting for the command")
            exit_code, signal = self._conclude(self._channel)
        except BaseException as error:
            self._abandon(error)
            if not isinstance(error, ConnectionLostError):
                self._settled()
            if isinstance(error, VmconnectError):
                raise error.with_machine(self.machine) from error.__cause__
            raise
        finally:
            self._channel.close()
        self._settled()
        return Result(
            argv=self.argv,
            exit_code=exit_code,
            signal=signal,
            stdout=bytes(kept_out),
            stderr=bytes(kept_err),
            seconds=time.perf_counter() - self._started,
        )

    def write(self, data: bytes, timeout: Deadline | float | None = None) -> None:
        """Write to its standard input; raises ConnectionLostError, also when it reads no more."""
        with self.translated("writing to the command", Deadline.of(timeout)):
            self._channel.sendall(data)

    def end_input(self) -> None:
        """Tell it that its standard input has ended."""
        end_input(self._channel)

    def signal(self, name: str) -> bool:
        """Send it a signal, such as ``"INT"``; whether it was still there to get it.

        It goes to the process group, as a Ctrl-C at a terminal would.
        """
        return self._result is None and self.control.signal(name)

    def kill(self) -> None:
        """End it, and all that it has started, at once."""
        if self._result is None and not self.control.end("KILL"):
            raise GuestError("the command cannot be ended", machine=self.machine, hint=_LEFT_HINT)

    def wait(self, timeout: Deadline | float | None = None) -> Result:
        """Wait until it has ended; its result has what of its output was not read before.

        Raises DeadlineError after ``timeout`` (it runs on), ConnectionLostError, and GuestError for
        more output than is kept (it is ended then).
        """
        if self._result is not None:
            return self._result
        deadline = Deadline.of(timeout)
        kept_out, kept_err = self.stdout.take(), self.stderr.take()
        kept_err += self._early
        self._early = b""
        try:
            drain(self._channel, keeping(kept_out), keeping(kept_err), deadline)
            if not self._channel.status_event.wait(deadline.remaining()):
                deadline.check("waiting for the command")
            exit_code, signal = self._conclude(self._channel)
        except DeadlineError as error:
            self.stdout.give_back(kept_out)
            self.stderr.give_back(kept_err)
            raise error.with_machine(self.machine) from error.__cause__
        except VmconnectError as error:
            self._abandon(error)
            self._channel.close()
            raise error.with_machine(self.machine) from error.__cause__
        self._channel.close()
        self._settled()
        self._result = Result(
            argv=self.argv,
            exit_code=exit_code,
            signal=signal,
            stdout=bytes(kept_out),
            stderr=bytes(kept_err),
            seconds=time.perf_counter() - self._started,
        )
        return self._result

    @property
    def running(self) -> bool:
        """Whether it has not ended, as far as is known here."""
        channel = self._channel
        return self._result is None and not (channel.status_event.is_set() or channel.closed)

    def close(self) -> None:
        """End it if it still runs, with SIGTERM first, and let go of it."""
        if self.running:
            self.control.end()
        self._channel.close()
        self._settled()

    @contextlib.contextmanager
    def translated(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """Turn paramiko's errors into ours, and its time-out into the deadline's."""
        self._channel.settimeout(deadline.remaining())
        try:
            yield
        except VmconnectError as error:
            raise error.with_machine(self.machine) from error.__cause__
        except TimeoutError as error:
            raise DeadlineError(f"timed out while {doing}", machine=self.machine) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLostError(
                f"the command has ended while {doing}", machine=self.machine
            ) from error
        finally:
            self._channel.settimeout(None)

    def _read_error(self, size: int) -> bytes:
        if self._early:
            early, self._early = self._early[:size], self._early[size:]
            return early
        return self._channel.recv_stderr(size)

    def _abandon(self, error: BaseException) -> None:
        """End in the guest what is waited for no more."""
        if isinstance(error, ConnectionLostError):
            return
        first = "HUP" if self.control.hung_up else "TERM"
        if isinstance(error, KeyboardInterrupt):
            first = "INT"
        elif isinstance(error, BrokenPipeError):
            first = "PIPE"
        if not self.control.end(first) and isinstance(error, DeadlineError):
            error.hint = _LEFT_HINT


class Output:
    """One output of a command, read as it comes."""

    def __init__(self, receive: Callable[[int], bytes], process: Process):
        self._receive = receive
        self._process = process
        self._buffer = bytearray()

    def read(self, size: int = _READ_BYTES, timeout: Deadline | float | None = None) -> bytes:
        """Return what there is, at most ``size`` bytes, waiting for some; nothing at the end."""
        if not self._buffer:
            with self._process.translated("reading its output", Deadline.of(timeout)):
                return self._receive(size)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def readline(self, limit: int = 1 << 20, timeout: Deadline | float | None = None) -> bytes:
        """Return a line with its newline, at most ``limit`` bytes of it; nothing at the end."""
        deadline = Deadline.of(timeout)
        line = bytearray()
        while len(line) < limit:
            data = self.read(min(_READ_BYTES, limit - len(line)), deadline)
            if not data:
                break
            before, newline, after = data.partition(b"\n")
            line += before + newline
            self._buffer[:0] = after
            if newline:
                break
        return bytes(line)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def take(self) -> bytearray:
        """Give away what was received and not read."""
        taken, self._buffer = self._buffer, bytearray()
        return taken

    def give_back(self, data: bytearray) -> None:
        """Undo `take`, with what came since."""
        self._buffer = data


def _chunks(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), _FEED_BYTES):
        yield bytes(view[start : start + _FEED_BYTES])
