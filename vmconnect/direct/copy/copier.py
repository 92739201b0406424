"""The copy itself: which ends, which way, and what comes back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vmconnect.deadline import Deadline
from vmconnect.direct.copy.copied import Copied, Failure
from vmconnect.direct.copy.ends import expanded, measure, named
from vmconnect.direct.copy.exchange import (
    Sum,
    far_to_far,
    far_to_tree,
    tree_to_far,
    tree_to_tree,
)
from vmconnect.direct.copy.frames import Fault, FrameError
from vmconnect.direct.copy.process import AGAIN, Connection, FarEnd, PortOpener
from vmconnect.direct.copy.receiver import Named, Receiver, StoppedError
from vmconnect.direct.copy.sender import Sender
from vmconnect.direct.copy.trees import LocalTree, Tree
from vmconnect.errors import (
    ConnectionLostError,
    CopyError,
    ResourceError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.progress import Progress, Silent

__all__ = ["WAYS", "Copier", "Options", "Place"]

WAYS = ("vsock", "SSH", "SFTP")
_MOST_FAILURES = 1000
_TELL_SECONDS = 0.1
# How long a copy that is wanted no more has to tidy up after itself.
_TIDY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """How to copy.

    ``sync`` leaves out files that are there already, by their size and time. ``special`` copies
    FIFOs and devices too. ``ways`` are those that may be tried.
    """

    sync: bool = False
    special: bool = False
    ways: tuple[str, ...] = WAYS


@dataclass(frozen=True, slots=True)
class Place:
    """A guest: the connection to it, and how its vsock ports are dialled, if they can be."""

    connection: Connection
    dial: PortOpener | None = None


class _CancelledError(Exception):
    """Whoever wanted the copy wants it no more."""


class Copier:
    """One copy, from a guest or this host (None) to another. Used once."""

    def __init__(
        self,
        source: Place | None,
        target: Place | None,
        options: Options | None = None,
        progress: Progress | None = None,
        on_failure: Callable[[Failure], object] | None = None,
    ):
        self._source = source
        self._target = target
        self._options = options or Options()
        self._progress = progress or Silent()
        self._counts = progress is not None
        self._on_failure = on_failure
        self._failures: list[Failure] = []
        self._failed = 0
        self._done = 0
        self._expected: int | None = None
        self._told_at = 0.0
        self._cancelled = threading.Event()
        self._ways: list[str] = []
        self._closing = contextlib.ExitStack()
        self._sources = contextlib.ExitStack()

    def copy(
        self, paths: Sequence[bytes], destination: bytes, timeout: Deadline | float | None = None
    ) -> Copied:
        """Copy ``paths`` to ``destination``, as cp -R has it, and return what came of it.

        ``timeout`` is for reaching the guests. Files that could not be copied are in the result.
        Raises GuestError or ResourceError when nothing can be written, ConnectionLostError,
        DeadlineError, CopyError.
        """
        started = time.monotonic()
        outcome: list[Sum] = []
        failed: list[BaseException] = []
        # Not the thread's end: a join that was interrupted takes it for ended (bpo-45274).
        over = threading.Event()

        def run() -> None:
            try:
                self.check()
                outcome.append(self._run(paths, destination, Deadline.of(timeout)))
            except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
                failed.append(error)
            finally:
                over.set()

        # A Ctrl-C in the midst of a message would cut it in two, and with it the connection.
        thread = threading.Thread(target=run, name="vmconnect-copy", daemon=True)
        try:
            thread.start()
            over.wait()
        except BaseException:
            self._cancelled.set()
            self._sources.close()
            if thread.ident is not None:
                over.wait(_TIDY_SECONDS)
                self._closing.close()
                over.wait()
            raise
        if failed:
            raise self._translated(failed[0]) from failed[0].__cause__
        files, size = outcome[0]
        return Copied(
            files=files,
            size=size,
            seconds=time.monotonic() - started,
            way=" and ".join(dict.fromkeys(self._ways)),
            failures=tuple(self._failures),
            failed=self._failed,
        )

    # The two ends.

    def _run(self, paths: Sequence[bytes], destination: bytes, deadline: Deadline) -> Sum:
        if self._source is None:
            paths = [each for path in paths for each in expanded(path)]
            names = [Named(named(path).name or named(path).pattern) for path in paths]
        else:
            names = [named(path) for path in paths]
        with self._closing, self._sources:
            if self._source is None and self._counts:
                self.total(*measure(paths))
            target = self._open(self._target, self._receiving(destination, names), deadline)
            source = self._open(self._source, self._sending(paths), deadline, self._sources)
            if isinstance(target, FarEnd):
                if isinstance(source, FarEnd):
                    return far_to_far(source, target, self)
                return tree_to_far(source, paths, target, self._sender(source), self)
            receiver = self._receiver(target, destination, names)
            try:
                if isinstance(source, FarEnd):
                    return far_to_tree(source, receiver, self)
                return tree_to_tree(source, paths, receiver, self._sender(source))
            finally:
                receiver.close(keep=not self._cancelled.is_set())

    def _open(
        self,
        place: Place | None,
        request: dict[str, Any],
        deadline: Deadline,
        closing: contextlib.ExitStack | None = None,
    ) -> FarEnd | Tree:
        if place is None:
            return LocalTree()
        closing = closing or self._closing
        ways = self._options.ways
        missing = "it has no Python that could copy"
        if "vsock" in ways or "SSH" in ways:
            dial = place.dial if "vsock" in ways else None
            far = FarEnd.start(place.connection, dial, request, deadline)
            if far is not None:
                closing.callback(far.close)
                if far.way in ways:
                    self._ways.append(far.way)
                    return far
                missing = "no vsock port of it can be dialled for the copy"
        if "SFTP" not in ways:
            raise UnsupportedError(
                missing, machine=place.connection.machine, hint="let it go another way, too"
            )
        from vmconnect.direct.copy.sftp import SftpTree

        self._ways.append("SFTP")
        client = closing.enter_context(place.connection.sftp())
        return SftpTree(client, place.connection.machine)

    def _sending(self, paths: Sequence[bytes]) -> dict[str, Any]:
        options = self._options
        return {
            "verb": "send",
            "paths": list(paths),
            "sync": options.sync,
            "special": options.special,
            "total": self._counts,
        }

    def _receiving(self, destination: bytes, names: Sequence[Named]) -> dict[str, Any]:
        return {
            "verb": "receive",
            "destination": destination,
            "names": [(each.name, each.pattern) for each in names],
            "special": self._options.special,
        }

    def _sender(self, source: Tree) -> Callable[..., Sender]:
        def make(put: Any, ask: Any) -> Sender:
            return Sender(
                put,
                ask,
                sync=self._options.sync,
                special=self._options.special,
                progress=self.moved,
            )

        return make

    def _receiver(self, target: Tree, destination: bytes, names: Sequence[Named]) -> Receiver:
        try:
            root, names, path = target.destination(destination, names)
        except OSError as error:
            fault = Fault(destination, error.errno or 0, error.strerror or str(error))
            raise StoppedError(fault) from error
        return Receiver(
            root,
            path,
            names,
            self.failed_here,
            lost=self.failed_there,
            special=self._options.special,
            progress=self.moved,
            total=self.total,
        )

    # Those who look on (`vmconnect.direct.copy.exchange.Watch`).

    def check(self) -> None:
        """Raise if the copy is wanted no more."""
        if self._cancelled.is_set():
            raise _CancelledError

    def moved(self, size: int, _path: bytes) -> None:
        """Take note of bytes that have gone."""
        self.check()
        self._done += size
        now = time.monotonic()
        if now >= self._told_at + _TELL_SECONDS or self._done == self._expected:
            self._told_at = now
            self._progress.advance(self._done, self._expected)

    def total(self, _files: int, size: int) -> None:
        """Take note of how much there is, about."""
        self._expected = size
        self._progress.advance(self._done, size)

    def failed_there(self, fault: Fault) -> None:
        """Take note of what could not be read."""
        self._failure(fault, self._source)

    def failed_here(self, fault: Fault) -> None:
        """Take note of what could not be written."""
        self._failure(fault, self._target)

    def _failure(self, fault: Fault, place: Place | None) -> None:
        failure = _failure_of(fault, place)
        self._failed += 1
        if self._failed <= _MOST_FAILURES:
            self._failures.append(failure)
        if self._on_failure:
            self._on_failure(failure)

    def _translated(self, error: BaseException) -> BaseException:
        """Return an error of our tree."""
        machine = next(
            (each.connection.machine for each in (self._source, self._target) if each), None
        )
        match error:
            case StoppedError():
                return _failure_of(error.fault, self._target).error
            case ConnectionLostError():
                lost = ConnectionLostError(
                    error.message,
                    machine=error.machine or machine,
                    hint=None if "SFTP" in self._ways else AGAIN,
                )
                lost.__cause__ = error.__cause__
                return lost
            case FrameError():
                return CopyError(f"a copy went astray: {error}", machine=machine)
            case VmconnectError():
                return error
            case OSError():
                return ResourceError(f"cannot copy: {error.strerror or error}")
        return error


def _failure_of(fault: Fault, place: Place | None) -> Failure:
    machine = place.connection.machine if place else None
    # What a guest says goes to a terminal.
    text = "".join(each if each.isprintable() else "?" for each in fault.text)
    return Failure(fault.path, text, machine, fault.number)
