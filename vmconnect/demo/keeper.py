"""The process that keeps a demo machine: it starts it, watches it, and clears up after it.

A machine must not outlive whoever started it, not even one that was killed. So this small
process stands between: whoever starts the machine holds the other end of its standard input,
and when that ends, by ``close`` or by death, QEMU and the vsock device are ended and every file of
theirs is removed. It also holds the lock that makes a machine's name unique, and keeps the log
of the serial console within bounds.

It reads one line of JSON, a `Plan`, and writes lines of JSON: ``{"event": "started", "pid": N}``
once QEMU runs, and at last ``{"event": "ended", "reason": ..., "status": ...}``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["LOG_BYTES", "LOG_DESCRIPTOR", "SUFFIXES", "Plan", "claimed", "clear"]

# What a machine called NAME has in the runtime directory, NAME.<suffix> each.
SUFFIXES = ("qmp", "events", "vnc", "vsock", "vu", "qga", "serial", "log", "json", "key")
# Stands in QEMU's arguments for the pipe to which it logs the serial console.
LOG_DESCRIPTOR = "@LOG@"

LOG_BYTES = 1 << 20
_ERROR_BYTES = 1 << 14
_DEVICE_START_SECONDS = 30.0
_STOP_SECONDS = 3.0
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start: command lines, and the files to write for others, by suffix."""

    directory: str
    name: str
    device: list[str]
    qemu: list[str]
    files: dict[str, str]

    def path(self, suffix: str) -> Path:
        """Return where the machine's file with ``suffix`` is."""
        return Path(self.directory) / f"{self.name}.{suffix}"

    def to_line(self) -> bytes:
        """Return the plan as the line that the keeper reads."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Read what `to_line` wrote."""
        return cls(**json.loads(line))


class _Ended(Exception):  # noqa: N818 (not an error: the machine's life is over)
    """Why everything is to be ended; ``status`` is QEMU's, where it has ended by itself."""

    def __init__(self, reason: str, status: int | None = None):
        super().__init__(reason)
        self.reason = reason
        self.status = status


class _Tail:
    """The last bytes of something that may be long."""

    def __init__(self, limit: int):
        self._limit = limit
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        self._data += data
        del self._data[: -self._limit]

    def last_line(self) -> str:
        lines = bytes(self._data).decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


class _Log:
    """The serial console's log: when it is full, the older half goes."""

    def __init__(self, path: Path):
        self._file = open(path, "w+b", buffering=0, opener=_private_opener)  # noqa: SIM115

    def add(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk costs lines of the log, no machine
            size = self._file.tell()
            if size + len(data) > LOG_BYTES:
                self._file.seek(max(0, size - LOG_BYTES // 2))
                kept = self._file.read()
                self._file.seek(0)
                self._file.truncate()
                self._file.write(kept)
            self._file.write(data)


class _Keeper:
    def __init__(self, plan: Plan):
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._device: subprocess.Popen[bytes] | None = None
        self._qemu: subprocess.Popen[bytes] | None = None
        self._device_errors = _Tail(_ERROR_BYTES)
        self._qemu_errors = _Tail(_ERROR_BYTES)
        self._watch_signals()
        self._log = _Log(plan.path("log"))

    def run(self) -> _Ended:
        """Start everything, and return when it has to end."""
        try:
            self._write_files()
            self._watch(sys.stdin.fileno(), self._on_owner)
            self._start_device()
            self._start_qemu()
            while True:
                self._turn(None)
        except _Ended as ended:
            return ended
        except OSError as error:
            return _Ended(f"{error.strerror}: {error.filename or self._plan.directory}")

    def end(self) -> None:
        """End QEMU, then the device that it uses."""
        for process in (self._qemu, self._device):
            if process is None:
                continue
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            process.kill()
            process.wait()

    def _write_files(self) -> None:
        for suffix, text in self._plan.files.items():
            with open(self._plan.path(suffix), "w", opener=_private_opener) as file:
                file.write(text)

    def _start_device(self) -> None:
        self._device = self._spawn(self._plan.device, self._device_errors)
        path, deadline = self._plan.path("vu"), time.monotonic() + _DEVICE_START_SECONDS
        while not _listens(path):
            if time.monotonic() > deadline:
                raise _Ended("the vsock device does not come up")
            self._turn(0.01)

    def _start_qemu(self) -> None:
        reader, writer = os.pipe()
        argv = [each.replace(LOG_DESCRIPTOR, f"/proc/self/fd/{writer}") for each in self._plan.qemu]
        self._qemu = self._spawn(argv, self._qemu_errors, keep=(writer,))
        os.close(writer)
        self._watch(reader, lambda: self._drain(reader, self._log))
        _tell({"event": "started", "pid": self._qemu.pid})

    def _spawn(
        self, argv: list[str], errors: _Tail, keep: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        # Should this process be killed itself, its children go with it. Only a thread's death
        # would be taken for its process's; this process has but one.
        if setpriv := shutil.which("setpriv"):
            argv = [setpriv, "--pdeathsig", "KILL", "--", *argv]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=keep,
        )
        assert process.stderr is not None  # noqa: S101 (it is a pipe, as asked for)
        pipe = process.stderr.fileno()
        self._watch(pipe, lambda: self._drain(pipe, errors))
        return process

    def _watch(self, descriptor: int, action: Any) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def _watch_signals(self) -> None:
        woken, waker = socket.socketpair()
        for each in (woken, waker):
            each.setblocking(False)
        self._sockets = (woken, waker)
        signal.set_wakeup_fd(waker.fileno())
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; whoever started us decides
        self._watch(woken.fileno(), lambda: self._on_signal(woken))

    def _turn(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            key.data()

    def _on_owner(self) -> None:
        if not os.read(sys.stdin.fileno(), _READ_BYTES):
            raise _Ended("stopped")

    def _on_signal(self, woken: socket.socket) -> None:
        numbers = woken.recv(_READ_BYTES)
        if signal.SIGTERM in numbers or signal.SIGHUP in numbers:
            raise _Ended("stopped")
        if self._qemu is not None and (status := self._qemu.poll()) is not None:
            self._drain_rest(self._qemu, self._qemu_errors)
            raise _Ended(_outcome("QEMU", status, self._qemu_errors), status)
        if self._device is not None and (status := self._device.poll()) is not None:
            self._drain_rest(self._device, self._device_errors)
            raise _Ended(_outcome("the vsock device", status, self._device_errors))

    def _drain(self, descriptor: int, into: _Tail | _Log) -> None:
        data = os.read(descriptor, _READ_BYTES)
        if data:
            into.add(data)
        else:
            self._selector.unregister(descriptor)

    @staticmethod
    def _drain_rest(process: subprocess.Popen[bytes], errors: _Tail) -> None:
        assert process.stderr is not None  # noqa: S101 (it is a pipe)
        os.set_blocking(process.stderr.fileno(), False)
        errors.add(process.stderr.read() or b"")


def _outcome(what: str, status: int, errors: _Tail) -> str:
    if status == 0:
        return f"{what} ended"
    how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    line = errors.last_line()
    return f"{what} {how}: {line}" if line else f"{what} {how}"


def _listens(path: Path) -> bool:
    """Tell whether a process listens on a UNIX socket, without connecting to it.

    A vhost-user back end serves one front end: a probing connection would use it up.
    proc(5), /proc/net/unix: flag 0x10000 is a listening socket.
    """
    wanted = str(path)
    with Path("/proc/net/unix").open(encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.rstrip("\n").split(maxsplit=7)
            if fields[-1] == wanted and int(fields[3], 16) & 0x10000:
                return True
    return False


@contextlib.contextmanager
def claimed(plan: Plan) -> Iterator[bool]:
    """Hold the name's lock; False if another keeper does. The file goes with us."""
    path = plan.path("lock")
    while True:
        with open(path, "wb", opener=_private_opener) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            # The one before may have removed the file between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    try:
                        yield True
                    finally:
                        path.unlink(missing_ok=True)
                    return


def _private_opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def clear(plan: Plan) -> None:
    """Remove the machine's files; for the holder of its name."""
    for suffix in SUFFIXES:
        plan.path(suffix).unlink(missing_ok=True)


def _tell(event: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # whoever started us is gone
        os.write(sys.stdout.fileno(), json.dumps(event).encode() + b"\n")


def main() -> None:
    """Keep one machine, from the plan to the end."""
    # Unbuffered: what follows the plan's line is for the loop to see, and that is its end.
    line = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False).readline()  # noqa: SIM115
    if not line.endswith(b"\n"):
        return  # whoever started us is gone already
    plan = Plan.from_line(line)
    try:
        with claimed(plan) as ours:
            if not ours:
                _tell({"event": "ended", "reason": "running", "status": None})
                return
            clear(plan)  # of a machine whose keeper was killed
            try:
                keeper = _Keeper(plan)
                ended = keeper.run()
                keeper.end()
            finally:
                clear(plan)
    except OSError as error:
        ended = _Ended(f"{error.strerror}: {error.filename or plan.directory}")
    _tell({"event": "ended", "reason": ended.reason, "status": ended.status})


if __name__ == "__main__":
    main()
