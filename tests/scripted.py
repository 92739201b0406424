"""A stream whose far end follows a script, with no socket, no thread and no waiting.

::

    script = Script() >> b"CONNECT 22\\n" << b"OK 5\\n" << b"SSH-2.0"

``>>`` is what the far end receives, bytes or a pattern; ``<<`` is what it then sends, bytes or
what a function makes of the last match; ``END`` is its end. Whatever else is sent fails the test,
and whoever waits for what the script does not give has passed its deadline.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectionLostError, DeadlineError

__all__ = ["END", "Script"]

Answer = Callable[[re.Match[bytes]], bytes]
END = b""


class Script:
    """See `vmconnect.streams.base.Wire`."""

    name = "the script"

    def __init__(self) -> None:
        self._steps: deque[re.Pattern[bytes] | bytes | Answer] = deque()
        self._received = b""
        self._match: re.Match[bytes] | None = None
        self._ended = False
        self.closed = False
        self.deaf = False
        """Whether it is all the same what is sent."""

    def __rshift__(self, expected: bytes | re.Pattern[bytes]) -> Script:
        if isinstance(expected, bytes):
            expected = re.compile(re.escape(expected))
        self._steps.append(expected)
        return self

    def __lshift__(self, sent: bytes | Answer) -> Script:
        self._steps.append(sent)
        return self

    @property
    def done(self) -> bool:
        """Whether all of it was played, and nothing else was sent."""
        return not self._steps and not self._received

    def receive_at_once(self, buffer: memoryview, /) -> int | None:
        if self.closed:
            raise ConnectionLostError("the script was closed on this side")
        if self._ended:
            return 0
        if not self._speaks:
            return None
        step = self._steps.popleft()
        if callable(step):
            assert self._match is not None
            step = step(self._match)
        assert isinstance(step, bytes)
        self._ended = step == END
        if step[len(buffer) :]:
            self._steps.appendleft(step[len(buffer) :])
        count = min(len(step), len(buffer))
        buffer[:count] = step[:count]
        return count

    def send_at_once(self, data: bytes | memoryview, /) -> int:
        if self.closed or self._ended:
            raise ConnectionLostError("the script is over")
        if self.deaf:
            return len(data)
        self._received += data
        while self._received and self._steps and isinstance(self._steps[0], re.Pattern):
            self._match = self._steps[0].match(self._received)
            if self._match is None:
                break  # The rest of it may come.
            self._received = self._received[self._match.end() :]
            self._steps.popleft()
        assert not self._received or not self._speaks, f"out of turn: {self._received!r}"
        return len(data)

    def wait(self, deadline: Deadline, /, *, reading: bool = False, writing: bool = False) -> None:
        del deadline
        if not writing and reading and not self._speaks and not self._ended:
            raise DeadlineError(f"the script waits for {list(self._steps)[:1]}")

    def recv(self, size: int, /) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def recv_into(self, buffer: memoryview, /) -> int:
        while (count := self.receive_at_once(buffer)) is None:
            self.wait(Deadline(None), reading=True)
        return count

    def fill(self, buffer: memoryview, /) -> int:
        filled = 0
        while filled < len(buffer) and (count := self.recv_into(buffer[filled:])):
            filled += count
        return filled

    send = send_at_once

    def sendall(self, data: bytes | memoryview, /) -> None:
        self.send_at_once(data)

    def settimeout(self, seconds: float | None, /) -> None:
        """Nothing waits."""

    def shutdown_write(self) -> None:
        """Nothing tells."""

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1

    @property
    def _speaks(self) -> bool:
        return bool(self._steps) and not isinstance(self._steps[0], re.Pattern)
