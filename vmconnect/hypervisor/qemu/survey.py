"""Many monitors asked at the same time, in one thread.

A monitor is sent all that is always asked (`description.QUESTIONS`) as soon as it is dialled,
before it greets, and is waited for with all the others. So it costs two system calls to ask one,
two or three to hear it, and one that hangs costs the others nothing.
"""

from __future__ import annotations

import resource
import select
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    ConnectionLostError,
    DeadlineError,
    QmpError,
    VmconnectError,
)
from vmconnect.hypervisor.machine import Machine
from vmconnect.hypervisor.place import Place
from vmconnect.hypervisor.qemu.description import QUESTIONS, description
from vmconnect.hypervisor.qmp import (
    HELD,
    NEGOTIATION,
    QmpParser,
    Question,
    answer,
    check_greeting,
    request,
)
from vmconnect.streams import SocketStream, Unix, dial_at_once

__all__ = ["survey"]

_READ_BYTES = 1 << 16
_LEAST_AT_ONCE, _MOST_AT_ONCE = 8, 1024
# Descriptors that are not monitors: standard streams, libraries, other hypervisors.
_SPARE_DESCRIPTORS = 128
# A monitor whose backlog is full is dialled again after this long.
_KNOCK_SECONDS = 0.02

_OPENING = b"".join(request(each, n) for n, each in enumerate((NEGOTIATION, *QUESTIONS)))


def survey(
    paths: Sequence[Path], place: Place, deadline: Deadline, each_seconds: float
) -> list[Machine | VmconnectError]:
    """Ask the monitors at ``paths`` about their machines, and return what each said, in order.

    ``place`` is of this host. Each monitor has ``each_seconds`` for its answers. What went wrong
    with one is its answer: ConnectError where nobody listens, DeadlineError, ConnectionLostError,
    QmpError and what QEMU refuses.
    """
    return _Survey(paths, place, deadline, each_seconds).run()


class _Interview:
    """One monitor that is being asked, from its dialling to its machine or an error."""

    def __init__(self, index: int, path: Path, place: Place, due: float):
        self.index = index
        self.due = due
        self.stream: SocketStream | None = None
        self.outcome: Machine | VmconnectError | None = None
        self._name = str(path)
        self._greeted = False
        self._parser = QmpParser()
        self._asking = description(path, place)
        self._asked: Sequence[Question] = (NEGOTIATION, *next(self._asking))
        self._number = 0  # of the first question
        self._answers: dict[int, Any] = {}

    def begin(self) -> None:
        """Dial, and say everything; there is no stream if nobody takes the call now."""
        try:
            self.stream = dial_at_once(Unix(self._name))
            if self.stream is not None:
                self.stream.sendall(_OPENING)  # A fresh socket has room for it.
        except VmconnectError as error:
            self.outcome = error

    def receive(self) -> None:
        """Take what has come; there is an outcome if that was all."""
        assert self.stream is not None  # noqa: S101 (it has told that it can be read)
        try:
            data = self.stream.recv(_READ_BYTES)
            if not data:
                raise ConnectionLostError("QEMU closed its monitor")
            messages = self._parser.receive(data)
            for message in messages:
                if "event" in message:
                    continue
                if self._greeted:
                    self._take(message)
                else:
                    check_greeting(message, self._name)
                    self._greeted = True
            while len(self._answers) == len(self._asked):
                self._go_on()
        except StopIteration as end:
            self.outcome = end.value
        except VmconnectError as error:
            self.outcome = error.with_machine(self._name)

    def close(self) -> None:
        """Leave the monitor to the next client."""
        if self.stream is not None:
            self.stream.close()

    def give_up(self) -> None:
        """Let an interview whose time is over have an error for its outcome."""
        self.outcome = DeadlineError(
            f"no answer from {self._name} in time",
            machine=None if self._greeted else self._name,
            hint=None if self._greeted else HELD,
        )

    def _take(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        index = number - self._number if isinstance(number, int) else -1
        if 0 <= index < len(self._asked):
            self._answers[index] = answer(message, self._asked[index][0], self._name)
        else:
            raise QmpError("an answer to no question", machine=self._name)

    def _go_on(self) -> None:
        """Hand the answers over, and ask what is asked next; StopIteration has the machine."""
        answers = [self._answers[index] for index in range(len(self._asked))]
        if not self._number:
            negotiated, *answers = answers
            if isinstance(negotiated, VmconnectError):
                raise negotiated
        self._number += len(self._asked)
        self._answers.clear()
        self._asked = self._asking.send(answers)
        assert self.stream is not None  # noqa: S101 (answers came by it)
        self.stream.settimeout(self.due - time.monotonic())
        self.stream.sendall(
            b"".join(request(each, self._number + n) for n, each in enumerate(self._asked))
        )


class _Survey:
    """The interviews that are under way, and those to come."""

    def __init__(
        self, paths: Sequence[Path], place: Place, deadline: Deadline, each_seconds: float
    ):
        self._place = place
        self._to_come = deque(enumerate(paths))
        self._deadline = deadline
        self._each_seconds = each_seconds
        self._results: list[Machine | VmconnectError | None] = [None] * len(paths)
        # In the order in which they began, which is the order in which their time is over.
        self._under_way: dict[int, _Interview] = {}
        self._talking: dict[int, _Interview] = {}  # by descriptor
        self._knocking: list[_Interview] = []  # whose call nobody has taken yet
        self._poll = select.epoll()
        self._at_once = _at_once()

    def run(self) -> list[Machine | VmconnectError]:
        """Interview all."""
        try:
            while self._to_come or self._under_way:
                self._begin_more()
                for descriptor, _ in self._poll.poll(self._patience()):
                    interview = self._talking[descriptor]
                    interview.receive()
                    if interview.outcome is not None:
                        self._end(interview)
                self._give_up_the_overdue()
        finally:
            for interview in self._talking.values():
                interview.close()
            self._poll.close()
        return [each for each in self._results if each is not None]

    def _begin_more(self) -> None:
        again, self._knocking = self._knocking, []
        for interview in again:
            self._begin(interview)
        while self._to_come and len(self._under_way) < self._at_once:
            index, path = self._to_come.popleft()
            left = self._deadline.remaining(at_most=self._each_seconds) or 0.0
            interview = _Interview(index, path, self._place, time.monotonic() + left)
            self._under_way[index] = interview
            self._begin(interview)

    def _begin(self, interview: _Interview) -> None:
        interview.begin()
        if interview.outcome is not None:
            self._end(interview)
        elif interview.stream is None:
            self._knocking.append(interview)
        else:
            descriptor = interview.stream.fileno()
            self._poll.register(descriptor, select.EPOLLIN)
            self._talking[descriptor] = interview

    def _end(self, interview: _Interview) -> None:
        self._results[interview.index] = interview.outcome
        del self._under_way[interview.index]
        if interview.stream is not None:
            self._talking.pop(interview.stream.fileno(), None)
            interview.close()

    def _patience(self) -> float:
        """Return for how long there is nothing to do but to wait."""
        oldest = next(iter(self._under_way.values()), None)
        if oldest is None:
            return 0.0
        left = max(0.0, oldest.due - time.monotonic())
        return min(left, _KNOCK_SECONDS) if self._knocking else left

    def _give_up_the_overdue(self) -> None:
        now = time.monotonic()
        while (oldest := next(iter(self._under_way.values()), None)) and oldest.due <= now:
            if oldest in self._knocking:
                self._knocking.remove(oldest)
            oldest.give_up()
            self._end(oldest)


def _at_once() -> int:
    """Return how many monitors may be held at the same time: as many as there are descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_AT_ONCE
    return max(_LEAST_AT_ONCE, min(_MOST_AT_ONCE, soft - _SPARE_DESCRIPTORS))
