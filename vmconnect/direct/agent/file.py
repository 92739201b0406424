"""A file in a guest that its agent holds open."""

from __future__ import annotations

import base64
import contextlib
import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import Answer, number_in
from vmconnect.errors import AgentError, VmconnectError

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["CHUNK_BYTES", "GuestFile"]

# A request is one line, of which libvirt passes on 4 MiB, and which the agent reads byte by byte.
CHUNK_BYTES = 1 << 18
_TIMEOUT = 30.0
_CLOSE_SECONDS = 5.0
_MOST_OFFSET = 1 << 63


class GuestFile:
    """Made by `GuestAgent.open`; closed at the end of a ``with`` block.

    The agent forgets its files when it starts anew: GuestError then, as for all that it refuses.
    """

    def __init__(self, agent: GuestAgent, path: str, handle: int):
        self.path = path
        self._agent = agent
        self._handle = handle
        self._closed = False

    @property
    def machine(self) -> str:
        """Return the name of the machine that it is in."""
        return self._agent.machine

    def read(self, size: int = CHUNK_BYTES, timeout: Deadline | float | None = _TIMEOUT) -> bytes:
        """Return up to ``size`` bytes, and up to 256 KiB; none at the end."""
        command, size = "guest-file-read", min(size, CHUNK_BYTES)
        answer = self._agent.execute(command, handle=self._handle, count=size, timeout=timeout)
        return Answer(answer, command).data("buf-b64", size)

    def write(self, data: bytes | memoryview, timeout: Deadline | float | None = _TIMEOUT) -> None:
        """Write all of ``data``; ``timeout`` is for each 256 KiB, a Deadline for all of it."""
        command, rest = "guest-file-write", memoryview(data)
        while rest:
            part = rest[:CHUNK_BYTES]
            encoded = base64.b64encode(part).decode("ascii")
            answer = Answer(
                self._agent.execute(command, handle=self._handle, buf_b64=encoded, timeout=timeout),
                command,
            )
            written = answer.number("count")
            if not 0 < written <= len(part):
                raise AgentError(f"a senseless answer to {command}", machine=self._agent.machine)
            rest = rest[written:]

    def seek(
        self,
        offset: int,
        whence: int = os.SEEK_SET,
        timeout: Deadline | float | None = _TIMEOUT,
    ) -> int:
        """Go to ``offset`` from the beginning, from here or from the end; return where that is."""
        command = "guest-file-seek"
        answer = self._agent.execute(
            command, handle=self._handle, offset=offset, whence=whence, timeout=timeout
        )
        return Answer(answer, command).number("position", _MOST_OFFSET)

    def flush(self, timeout: Deadline | float | None = _TIMEOUT) -> None:
        """Have the guest's system take all that was written; a full disk is told here at last."""
        self._agent.execute("guest-file-flush", handle=self._handle, timeout=timeout)

    def close(self, timeout: Deadline | float | None = _CLOSE_SECONDS) -> None:
        """Let the agent close it; nothing happens a second time."""
        if not self._closed:
            self._closed = True
            self._agent.execute("guest-file-close", handle=self._handle, timeout=timeout)

    @classmethod
    def open(cls, agent: GuestAgent, path: str, mode: str, deadline: Deadline) -> Self:
        """Let the agent open a file; ``mode`` is fopen(3)'s."""
        command = "guest-file-open"
        answer = agent.execute(command, path=path, mode=mode, timeout=deadline)
        return cls(agent, path, number_in(answer, _MOST_OFFSET, command))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(VmconnectError):
            self.close()
