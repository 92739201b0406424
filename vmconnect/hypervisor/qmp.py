"""QMP, the QEMU Machine Protocol, over any stream (QEMU docs/interop/qmp-spec).

A monitor serves one client at a time: a second one connects, and waits for its greeting until
the first has gone. So keep a client only as long as there is something to say.

It is synchronous and ours, since it has to run over every stream that a console runs over
(UNIX here, tunnels elsewhere) and on the start-up path of every command, where asyncio's import
alone would cost more than the whole exchange.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vmconnect.closing import Closing
from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    HypervisorError,
    QmpError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.streams import Endpoint, SocketStream, Stream, dial

__all__ = [
    "HELD",
    "NEGOTIATION",
    "QmpClient",
    "QmpEvent",
    "QmpParser",
    "Question",
    "answer",
    "check_greeting",
    "request",
]

Question = tuple[str, dict[str, Any]]
"""A command and its arguments."""

NEGOTIATION: Question = ("qmp_capabilities", {})
"""What has to be said first; what follows may be sent with it, before the greeting has come."""

HELD = "another program may hold this monitor: QEMU serves one at a time"
"""The most likely reason why a monitor does not greet."""

# QEMU's own limit on what it reads is 64 MiB; its longest real answers (qom lists, block
# graphs) stay under 1 MiB.
MAX_LINE_BYTES = 16 << 20
MAX_EVENTS_KEPT = 1000
_READ_BYTES = 1 << 16
_REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """Something that happened in the machine, such as RESET or SHUTDOWN; ``data`` is JSON."""

    name: str
    data: dict[str, Any]


class QmpParser:
    """Lines of JSON out of bytes; no I/O."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def receive(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages that ``data`` completes; raises QmpError on anything else."""
        self._partial += data
        if b"\n" not in data:
            if len(self._partial) > MAX_LINE_BYTES:
                raise QmpError(f"a message longer than {MAX_LINE_BYTES} bytes")
            return []
        *lines, self._partial = self._partial.split(b"\n")
        lines = [line for line in lines if line.strip()]
        try:
            # Most often several lines come together, and what a parser takes to start is the most.
            messages = json.loads(b"[%b]" % b",".join(lines))
        except (ValueError, RecursionError):
            messages = []
        if len(messages) != len(lines) or not all(type(each) is dict for each in messages):
            return [self._message(line) for line in lines]  # It knows which is wrong.
        return messages  # type: ignore[no-any-return]

    @staticmethod
    def _message(line: bytearray) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpError(f"not a QMP message: {bytes(line[:40])!r}") from error
        if not isinstance(message, dict):
            raise QmpError(f"a QMP message that is no object: {bytes(line[:40])!r}")
        return message


def request(question: Question, number: int) -> bytes:
    """Return a command as it is sent; ``number`` comes back with its answer.

    Underscores in arguments' names become hyphens.
    """
    command, arguments = question
    message: dict[str, Any] = {"execute": command, "id": number}
    if arguments:
        message["arguments"] = {key.replace("_", "-"): val for key, val in arguments.items()}
    return json.dumps(message).encode() + b"\n"


def check_greeting(message: dict[str, Any], machine: str) -> None:
    """Raise QmpError if ``message`` is not how a monitor greets."""
    if not isinstance(message.get("QMP"), dict):
        raise QmpError("no QMP greeting", machine=machine, hint="is this a QMP socket?")


def answer(message: dict[str, Any], command: str, machine: str) -> Any | VmconnectError:
    """Return what an answer gives: a value, or the error of a refusal.

    Raises QmpError if it is no answer.
    """
    if "return" in message:
        return message["return"]
    error = message.get("error")
    if not isinstance(error, dict):
        raise QmpError("an answer that is none", machine=machine)
    if error.get("class") == "CommandNotFound":
        return UnsupportedError(f"this QEMU knows no {command}", machine=machine)
    text = str(error.get("desc"))[:_REASON_CHARACTERS]
    return HypervisorError(f"QEMU refused {command}: {text}", machine=machine)


class QmpClient(Closing):
    """The monitor of one QEMU, ready for commands."""

    def __init__(self, stream: Stream, machine: str, timeout: Deadline | float | None = 10.0):
        """Greet over ``stream``, which the client then owns.

        Raises QmpError when the far end is no QMP monitor, DeadlineError when it says nothing
        (another client may hold the monitor).
        """
        self.machine = machine
        self.events: deque[QmpEvent] = deque(maxlen=MAX_EVENTS_KEPT)
        self._stream = stream
        self._parser = QmpParser()
        self._answers: deque[dict[str, Any]] = deque()
        self._ids = itertools.count(1)
        deadline = Deadline.of(timeout)
        try:
            try:
                greeting = self._next(deadline)
            except DeadlineError as error:
                error.hint = HELD
                raise
            check_greeting(greeting, machine)
            command, arguments = NEGOTIATION
            self.execute(command, timeout=deadline, **arguments)
        except BaseException:
            stream.close()
            raise

    @classmethod
    def connect(cls, endpoint: Endpoint, timeout: Deadline | float | None = 10.0) -> QmpClient:
        """Dial ``endpoint`` and greet; raises what `dial` and the constructor do."""
        deadline = Deadline.of(timeout)
        return cls(dial(endpoint, deadline), str(endpoint), deadline)

    def execute(
        self,
        command: str,
        *,
        timeout: Deadline | float | None = 10.0,
        descriptor: int | None = None,
        **arguments: Any,
    ) -> Any:
        """Run ``command`` and return its JSON answer; underscores in names become hyphens.

        ``descriptor`` is handed to QEMU along with it (for ``getfd`` and ``add-fd``).

        Raises HypervisorError when QEMU refuses it, UnsupportedError when it does not know it,
        DeadlineError, ConnectionLostError.
        """
        deadline = Deadline.of(timeout)
        deadline.check("asking QEMU's monitor")
        number = next(self._ids)
        self._stream.settimeout(deadline.remaining())
        # No variable keeps the line, in which may be a password: tracebacks show variables.
        if descriptor is None:
            self._stream.sendall(request((command, arguments), number))
        elif isinstance(self._stream, SocketStream):
            self._stream.send_descriptor(request((command, arguments), number), descriptor)
        else:
            raise UnsupportedError("only a local monitor takes descriptors", machine=self.machine)
        value = answer(self._answer_to(number, deadline), command, self.machine)
        if isinstance(value, VmconnectError):
            raise value
        return value

    def execute_all(
        self, questions: Sequence[Question], timeout: Deadline | float | None = 10.0
    ) -> list[Any]:
        """Run several commands, all sent at once, and return their answers in order.

        One that QEMU refuses, or does not know, has the error of `execute` for its answer; other
        errors are raised.
        """
        deadline = Deadline.of(timeout)
        deadline.check("asking QEMU's monitor")
        numbered = [(next(self._ids), question) for question in questions]
        self._stream.settimeout(deadline.remaining())
        self._stream.sendall(b"".join(request(each, number) for number, each in numbered))
        return [
            answer(self._answer_to(number, deadline), command, self.machine)
            for number, (command, _) in numbered
        ]

    def wait_event(self, name: str, timeout: Deadline | float | None = None) -> QmpEvent:
        """Return the next event of that name, an earlier unread one first; DeadlineError."""
        deadline = Deadline.of(timeout)
        while True:
            while self.events:
                event = self.events.popleft()
                if event.name == name:
                    return event
            self.receive(deadline)

    def close(self) -> None:
        """Leave the monitor to the next client."""
        self._stream.close()

    def _next(self, deadline: Deadline) -> dict[str, Any]:
        """Return the next answer, reading until there is one."""
        while not self._answers:
            self.receive(deadline)
        return self._answers.popleft()

    def _answer_to(self, number: int, deadline: Deadline) -> dict[str, Any]:
        """Return the answer to a command; one to a command whose deadline passed is dropped."""
        while True:
            message = self._next(deadline)
            if message.get("id") == number:
                return message

    def fileno(self) -> int:
        """Return a descriptor that can be polled: readable when `receive` will not wait."""
        return self._stream.fileno()

    def receive(self, deadline: Deadline) -> None:
        """Read once and sort what came into answers and `events`; raises as `execute` does."""
        deadline.check("waiting for QEMU's monitor")
        self._stream.settimeout(deadline.remaining())
        with deadline.waking(self._stream.close):
            data = self._stream.recv(_READ_BYTES)
        if not data:
            raise ConnectionLostError("QEMU closed its monitor", machine=self.machine)
        try:
            messages = self._parser.receive(data)
        except QmpError as error:
            raise error.with_machine(self.machine) from error.__cause__
        for message in messages:
            if "event" in message:
                details = message.get("data")
                details = details if isinstance(details, dict) else {}
                self.events.append(QmpEvent(str(message["event"]), details))
            else:
                self._answers.append(message)
