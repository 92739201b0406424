"""Moving a command's bytes: its channel on one side, files or memory on the other."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable

from vmconnect.deadline import Deadline
from vmconnect.direct.library import paramiko
from vmconnect.errors import GuestError

__all__ = ["OUTPUT_LIMIT_BYTES", "Sink", "drain", "end_input", "feed", "keeping"]

Sink = Callable[[bytes], object]

OUTPUT_LIMIT_BYTES = 256 << 20
"""How much of an output is kept in memory, unless a sink takes it."""

# A paramiko buffer holds at most a window; to take all of it spares it moving the rest.
_ALL_BYTES = 1 << 30


# A command need not read its input: that it went away meanwhile is no failure of ours.
_GONE = (OSError, EOFError, paramiko.SSHException)


class _Signal:
    """Stands in for the event of a paramiko buffer: raised by both, lowered by the reader."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set
        self.wait = self._event.wait
        self.lower = self._event.clear

    def clear(self) -> None:
        """Ignore that one buffer ran empty: the other may be full."""


def drain(channel: paramiko.Channel, stdout: Sink, stderr: Sink, deadline: Deadline) -> None:
    """Hand what the command writes to the sinks, as it comes, until both its outputs end.

    One thread serves both, so that neither fills the window and stops the other. A slow sink
    slows the guest's command: no more than the window is ever kept. Raises DeadlineError.
    """
    signal = _Signal()
    # BufferedPipe.set_event is paramiko's hook for Channel.fileno; it raises at once on data.
    for buffer in (channel.in_buffer, channel.in_stderr_buffer):
        buffer.set_event(signal)  # type: ignore[arg-type]
    while True:
        signal.lower()
        ended = channel.eof_received or channel.closed
        moved = False
        if channel.recv_ready():
            stdout(channel.recv(_ALL_BYTES))
            moved = True
        if channel.recv_stderr_ready():
            stderr(channel.recv_stderr(_ALL_BYTES))
            moved = True
        if moved:
            continue
        if ended:
            return
        deadline.check("waiting for the command")
        signal.wait(deadline.remaining())


def keeping(kept: bytearray) -> Sink:
    """Return a sink that keeps what it is given; it raises GuestError when that is too much."""

    def keep(data: bytes) -> None:
        if len(kept) + len(data) > OUTPUT_LIMIT_BYTES:
            raise GuestError(
                f"the command wrote more than {OUTPUT_LIMIT_BYTES >> 20} MiB",
                hint="take the output with a sink",
            )
        kept.extend(data)

    return keep


def feed(channel: paramiko.Channel, chunks: Iterable[bytes]) -> threading.Thread:
    """Send ``chunks`` to the command's standard input from a thread of its own, then its end."""

    def send() -> None:
        with contextlib.suppress(*_GONE):
            for chunk in chunks:
                channel.sendall(chunk)
        end_input(channel)

    thread = threading.Thread(target=send, name="vmconnect-stdin", daemon=True)
    thread.start()
    return thread


def end_input(channel: paramiko.Channel) -> None:
    """Tell the command that its standard input has ended."""
    with contextlib.suppress(*_GONE):
        channel.shutdown_write()
