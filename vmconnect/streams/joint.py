"""A stream joined to two descriptors of ours, such as standard input and output."""

# There is no splice(2) here: it holds the pipe's lock while it waits for the socket, and whoever
# looks at the other end of the pipe meanwhile cannot even be killed. What is to be fast has its
# connection handed over (``vmconnect proxy --fdpass``).

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import threading

from vmconnect.errors import ConnectionLostError, VmconnectError
from vmconnect.streams.base import Stream

__all__ = ["join"]

_CHUNK_BYTES = 1 << 18
# How much a pipe of ours may hold, so that its reader is woken less often.
_PIPE_BYTES = 1 << 20
# How long the last words of one who has left may take.
_LAST_SECONDS = 2.0
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF}


def join(stream: Stream, source: int, sink: int) -> None:
    """Send what ``source`` gives, write what comes to ``sink``, until both directions have ended.

    An end is passed on alone: whoever has no more to say can still listen. ``sink`` is ended when
    the far end has; ``source`` is then read only for as long as the far end still takes
    anything. Nothing is kept: a side that does not read holds up the other.

    Raises ConnectionLostError when the connection breaks; a reader of ``sink`` that leaves ends
    both directions without an error, and what it had said before it left is still passed on.
    """
    sending = threading.Thread(target=_send, args=(stream, source), daemon=True)
    sending.start()
    left = _receive(stream, sink)
    _end(sink)
    if not left:
        sending.join()
    elif _has_ended(source):
        sending.join(_LAST_SECONDS)
    stream.close()


def _send(stream: Stream, source: int) -> None:
    """Pass on what ``source`` gives, then its end; stop when the far end has gone."""
    gone = select.poll()
    gone.register(source, select.POLLIN)
    # Also without being asked for: it tells of the end of both directions, and of errors.
    gone.register(stream.fileno(), 0)
    with contextlib.suppress(VmconnectError, OSError):
        while True:
            events = dict(gone.poll())
            if source not in events:
                return
            if not _send_some(stream, source):
                break
    with contextlib.suppress(VmconnectError):
        stream.shutdown_write()


def _send_some(stream: Stream, source: int) -> int:
    try:
        data = os.read(source, _CHUNK_BYTES)
    except BlockingIOError:
        return 1  # It is waited for.
    stream.sendall(data)
    return len(data)


def _receive(stream: Stream, sink: int) -> bool:
    """Write what comes to ``sink`` until the far end ends; return whether its reader left before.

    That is seen also while nothing comes: a far end may be silent for ever.
    """
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    _widen(sink)
    ready = select.poll()
    ready.register(stream.fileno(), select.POLLIN)
    ready.register(sink, 0)
    try:
        while sink not in dict(ready.poll()):
            if not _receive_some(stream, sink, buffer):
                return False
    except ConnectionLostError:
        raise
    except OSError as error:
        if error.errno not in _GONE:
            raise ConnectionLostError(f"cannot pass on what came: {error.strerror}") from error
    return True


def _receive_some(stream: Stream, sink: int, buffer: memoryview) -> int:
    count = stream.recv_into(buffer)
    rest = buffer[:count]
    while rest:
        try:
            rest = rest[os.write(sink, rest) :]
        except BlockingIOError:
            _wait(sink, select.POLLOUT)
    return count


def _end(sink: int) -> None:
    """Say that nothing more comes: a socket may still be read from."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(sink).st_mode):
            with socket.socket(fileno=os.dup(sink)) as sock:
                sock.shutdown(socket.SHUT_WR)
        else:
            os.close(sink)


def _has_ended(source: int) -> bool:
    """Return whether nobody is there any more to give anything."""
    poll = select.poll()
    poll.register(source, 0)
    return bool(poll.poll(0))


def _widen(pipe: int) -> None:
    import fcntl

    with contextlib.suppress(
        OSError
    ):  # No pipe, or more than the kernel lets a user have (pipe(7)).
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()
