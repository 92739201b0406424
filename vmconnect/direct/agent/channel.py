"""What carries requests to a guest's agent."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.protocol import (
    AgentParser,
    Reply,
    Synced,
    encode_mark,
    encode_request,
    encode_sync,
    most_bytes,
)
from vmconnect.errors import AgentError, ConnectionLostError, DeadlineError, UnsupportedError
from vmconnect.streams import Stream

__all__ = ["AgentChannel", "StreamChannel"]

_READ_BYTES = 1 << 16
# What is sent while no agent listens in the guest is lost: it is asked again after so long.
_ASK_AGAIN_SECONDS = 1.0
_CATCH_UP_SECONDS = 10.0
# The schema has an int64, and JSON parsers without one have 53 bits.
_NUMBER_BITS = 53


class AgentChannel(Protocol):
    """A way to a guest's agent: a reply for a request, one at a time."""

    def exchange(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        """Send a request and return its reply, with ``return`` or ``error`` in it.

        Raises DeadlineError when none comes, ConnectionLostError, AgentError.
        """

    def order(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any] | None:
        """Send a request that has a reply only if it fails; return that, None if it did not.

        Raises as `exchange`; DeadlineError also if the guest has gone to do it.
        """

    def close(self) -> None:
        """Leave the channel to the next."""


class StreamChannel:
    """The socket of a virtio-serial port's chardev, as QEMU has it; safe from any thread.

    QEMU serves one client at a time: another's connection waits, with no answer, until the first
    has gone.
    """

    def __init__(self, stream: Stream, machine: str):
        self.machine = machine
        self._stream = stream
        self._parser = AgentParser()
        self._replies: deque[Reply | Synced] = deque()
        self._synchronised = False
        # Whether requests have an id, and whether this agent gives it back, as far as is known.
        self._numbers = True
        self._echoes = False
        self._turn = threading.Lock()

    def exchange(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any]:
        """Send a request and return its reply; raises as `AgentChannel` says.

        After one that had no reply the channel is synchronised before the next, so that a late
        reply is nobody else's.
        """
        with self._turns(command, deadline):
            reply = self._ask(command, arguments, deadline)
            if self._numbers and reply.refuses_number:
                self._numbers = False
                reply = self._ask(command, arguments, deadline)
            self._synchronised = True
            return reply.content

    def order(
        self, command: str, arguments: dict[str, Any], deadline: Deadline
    ) -> dict[str, Any] | None:
        """Send a request that is answered only if it fails, and return that answer, else None.

        What is asked behind it is answered after it: so None is known, not waited for.
        """
        with self._turns(command, deadline):
            reply = self._tell(command, arguments, deadline)
            if reply is not None and self._numbers and reply.refuses_number:
                self._numbers = False
                reply = self._tell(command, arguments, deadline)
            self._synchronised = True
            return None if reply is None else reply.content

    def close(self) -> None:
        """Leave the channel to the next."""
        self._stream.close()

    @contextlib.contextmanager
    def _turns(self, command: str, deadline: Deadline) -> Iterator[None]:
        """Have the channel to ourselves for ``command``, synchronised at the block's beginning."""
        left = deadline.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            raise DeadlineError("the guest agent is busy with another", machine=self.machine)
        try:
            self._parser.most_bytes = most_bytes(command)
            if not self._synchronised:
                self._synchronise(deadline)
            # Until the reply is there the next one in line is not the next request's.
            self._synchronised = False
            yield
        except (AgentError, ConnectionLostError, UnsupportedError) as error:
            raise error.with_machine(self.machine) from error.__cause__
        finally:
            self._turn.release()

    def _ask(self, command: str, arguments: dict[str, Any], deadline: Deadline) -> Reply:
        """Send a request and return its own reply, whatever others come before."""
        number = secrets.randbits(_NUMBER_BITS) if self._numbers else None
        self._send(encode_request(command, arguments, number), deadline)
        while True:
            reply = self._next(deadline, f"answer {command}")
            # A Synced is the reply to an earlier try to synchronise.
            if isinstance(reply, Reply) and self._is_to(number, reply):
                return reply

    def _tell(self, command: str, arguments: dict[str, Any], deadline: Deadline) -> Reply | None:
        """Send a request and return its reply, None if what was asked behind it is answered."""
        number = secrets.randbits(_NUMBER_BITS) if self._numbers else None
        mark = secrets.randbits(_NUMBER_BITS)
        request = encode_request(command, arguments, number) + encode_mark(mark)
        self._send(request, deadline)
        answer: Reply | None = None
        while True:
            reply = self._next(deadline, f"do {command}")
            if isinstance(reply, Reply):
                answer = reply if self._is_to(number, reply) else answer
            elif reply.number == mark:
                return answer

    def _is_to(self, number: int | None, reply: Reply) -> bool:
        """Return whether it is the reply to the request with that number."""
        if number is not None and reply.number == number:
            self._echoes = True
        return reply.number == number or (reply.number is None and not self._echoes)

    def _synchronise(self, deadline: Deadline) -> None:
        """Return when the last thing that was asked has been answered."""
        self._replies.clear()
        self._parser.resynchronise()
        earlier: set[int] = set()
        while True:
            number = secrets.randbits(_NUMBER_BITS)
            self._send(encode_sync(number), deadline)
            soon = deadline.sooner(_ASK_AGAIN_SECONDS)
            try:
                while (answered := self._synced(soon)) != number:
                    if answered in earlier:
                        # It has begun to answer, and comes to the last by itself.
                        soon = deadline.sooner(_CATCH_UP_SECONDS)
            except DeadlineError:
                if deadline.passed:
                    raise
                earlier.add(number)
            else:
                return

    def _synced(self, deadline: Deadline) -> int | None:
        """Return the number of the next reply; None for any that has none."""
        try:
            reply = self._next(deadline, "answer")
        except AgentError:
            return None  # The rest of what was meant for another.
        return reply.number if isinstance(reply, Synced) else None

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._stream.settimeout(deadline.remaining())
        self._stream.sendall(data)

    def _next(self, deadline: Deadline, doing: str) -> Reply | Synced:
        while not self._replies:
            if deadline.passed:
                raise DeadlineError(
                    f"the guest agent did not {doing} in time",
                    machine=self.machine,
                    hint="is qemu-guest-agent running in the guest?",
                )
            self._stream.settimeout(deadline.remaining())
            try:
                data = self._stream.recv(_READ_BYTES)
            except DeadlineError:
                continue
            if not data:
                raise ConnectionLostError("the guest agent's channel has closed")
            self._replies += self._parser.receive(data)
        return self._replies.popleft()
