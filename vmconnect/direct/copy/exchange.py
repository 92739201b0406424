"""Frames from one end of a copy to the other, wherever the two are."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from vmconnect.direct.copy.frames import (
    COUNTS,
    Fault,
    FrameError,
    Kind,
    unpack,
    unpack_fault,
)
from vmconnect.direct.copy.process import FarEnd
from vmconnect.direct.copy.receiver import Receiver, StoppedError
from vmconnect.direct.copy.sender import Sender
from vmconnect.direct.copy.trees import Tree
from vmconnect.errors import ConnectionLostError, VmconnectError

if TYPE_CHECKING:
    from vmconnect.direct.copy.frames import Bytes

__all__ = ["Watch", "far_to_far", "far_to_tree", "tree_to_far", "tree_to_tree"]

_LOOK_SECONDS = 0.2
_LAST_WORDS_SECONDS = 2.0
_ANSWERED = frozenset({Kind.FILE, Kind.ASK, Kind.DONE})

Sum = tuple[int, int]
"""How many files and bytes were written."""


class Watch(Protocol):
    """Who looks on while a copy goes on. Each of these may raise, to end it."""

    def moved(self, size: int, path: bytes, /) -> None:
        """Take note of bytes that have gone."""

    def total(self, files: int, size: int, /) -> None:
        """Take note of how much there is, about."""

    def failed_there(self, fault: Fault, /) -> None:
        """Take note of what could not be read."""

    def failed_here(self, fault: Fault, /) -> None:
        """Take note of what could not be written."""

    def check(self) -> None:
        """Raise if the copy is wanted no more."""


def tree_to_tree(
    source: Tree, paths: Sequence[bytes], receiver: Receiver, sender_of: Callable[..., Sender]
) -> Sum:
    """Copy where both ends are here."""

    def ask(kind: int, payload: Bytes) -> tuple[int, memoryview]:
        answer = receiver.take(kind, payload)
        if answer is None:
            raise FrameError("no answer")
        return answer[0], memoryview(answer[1])

    sender = sender_of(receiver.take, ask)
    source.send(sender, paths)
    return sender.done()


def far_to_tree(far: FarEnd, receiver: Receiver, watch: Watch) -> Sum:
    """Copy out of a guest. Raises FrameError, StoppedError, ConnectionLostError."""
    while True:
        watch.check()
        kind, payload = _taken(far)
        answer = receiver.take(kind, payload)
        if answer is not None:
            if answer[0] == Kind.SUM:
                return receiver.files, receiver.size
            far.pipe.put(*answer)
            far.pipe.flush()


def tree_to_far(
    source: Tree,
    paths: Sequence[bytes],
    far: FarEnd,
    sender_of: Callable[..., Sender],
    watch: Watch,
) -> Sum:
    """Copy into a guest; else as `far_to_tree`."""
    answers = _Answers(far, watch)

    def put(kind: int, payload: Bytes) -> None:
        watch.check()
        answers.check()
        if kind in {Kind.LOST, Kind.DROP}:
            watch.failed_there(unpack_fault(memoryview(payload)))
        far.pipe.put(kind, payload)

    def ask(kind: int, payload: Bytes) -> tuple[int, memoryview]:
        answers.expect()
        put(kind, payload)
        far.pipe.flush()
        return answers.next()

    with answers:
        sender = sender_of(put, ask)
        source.send(sender, paths)
        return sender.done()


def far_to_far(source: FarEnd, target: FarEnd, watch: Watch) -> Sum:
    """Copy from one guest to another; else as `far_to_tree`.

    What goes by is the receiver's to judge: it trusts nobody.
    """
    answers = _Answers(target, watch, source)
    with answers:
        while True:
            watch.check()
            answers.check()
            kind, payload = _taken(source)
            if kind in {Kind.LOST, Kind.DROP}:
                watch.failed_there(unpack_fault(payload))
            elif kind == Kind.TOTAL:
                watch.total(*unpack(COUNTS, payload))
            elif kind in {Kind.DATA, Kind.WHOLE}:
                watch.moved(len(payload), b"")
            if kind == Kind.DONE:
                answers.expect()
            target.pipe.put(kind, payload)
            if kind in _ANSWERED:
                target.pipe.flush()
            if kind == Kind.DONE:
                files, size = unpack(COUNTS, answers.next()[1])
                return files, size


class _Answers:
    """A thread that reads what a receiver in a guest says, while another sends to it.

    Where the sender is in a guest as well, its answers are handed on to it.
    """

    def __init__(self, far: FarEnd, watch: Watch, asker: FarEnd | None = None):
        self._far = far
        self._watch = watch
        self._asker = asker
        self._answers: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        # Each is counted by one thread alone.
        self._expected = self._received = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="vmconnect-answers", daemon=True)

    def check(self) -> None:
        """Raise what has ended the receiver, if anything has."""
        if self._error is not None:
            raise self._error

    def expect(self) -> None:
        """Take note that something is about to be asked: one more answer may come."""
        self._expected += 1

    def next(self) -> tuple[int, memoryview]:
        """Return the next answer."""
        while True:
            try:
                answer = self._answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self._watch.check()
                continue
            if answer is None:
                self.check()
                raise self._far.ended()
            return answer[0], memoryview(answer[1])

    def _run(self) -> None:
        try:
            while True:
                kind, payload = _taken(self._far)
                if kind == Kind.FAILED:
                    self._watch.failed_here(unpack_fault(payload))
                elif kind == Kind.FATAL:
                    raise StoppedError(unpack_fault(payload))
                elif kind == Kind.SUM or self._asker is None:
                    if self._received == self._expected:
                        raise FrameError("an answer that was not asked for")
                    self._received += 1
                    self._answers.put((kind, bytes(payload)))
                if self._asker is not None and kind in {Kind.SUM, Kind.HELD, Kind.WANTED}:
                    self._asker.pipe.put(kind, payload)
                    self._asker.pipe.flush()
                if kind == Kind.SUM:
                    return
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            self._error = error
            self._answers.put(None)
            if self._asker is not None:
                self._asker.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        if isinstance(error, ConnectionLostError):
            # Most likely it has said why before it went.
            self._thread.join(_LAST_WORDS_SECONDS)
            if isinstance(self._error, StoppedError):
                raise self._error
        if not isinstance(error, ConnectionLostError) or self._is_unwanted():
            # What is kept for later is for who was cut off.
            self.expect()
            with contextlib.suppress(VmconnectError):
                self._far.pipe.put(Kind.ABANDON)
                self._far.pipe.flush()
                self._thread.join(_LAST_WORDS_SECONDS)

    def _is_unwanted(self) -> bool:
        try:
            self._watch.check()
        except Exception:  # noqa: BLE001 (whatever says so)
            return True
        return False


def _taken(far: FarEnd) -> tuple[int, memoryview]:
    try:
        return far.pipe.take()
    except EOFError:
        raise far.ended() from None
