"""Background jobs: commands that outlive the connection, and whoever started them.

A job lives in the guest alone: a shell there runs it, keeps what it writes in files of a private
directory of its user, up to a bound, and notes how it ended (`scripts/supervisor.sh`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.command import Words, script, words_of
from vmconnect.direct.control import signal_name
from vmconnect.direct.job_status import JOB_NAME, JobStatus, shown, statuses
from vmconnect.direct.pump import Sink, keeping
from vmconnect.direct.result import Result
from vmconnect.errors import DeadlineError, GuestError, StateError, TargetError
from vmconnect.operation import Operation

if TYPE_CHECKING:
    from vmconnect.direct.guest import Guest

__all__ = ["Job", "Jobs"]

KEPT_BYTES = 64 << 20
"""How much of each output is kept, unless it is said."""

_BLOCK_BYTES = 512
_ANSWER_SECONDS = 60.0
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
_NO_PLACE, _NO_JOB, _RUNNING, _TOO_MANY = 90, 91, 92, 93
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_MOST_SECONDS = 10**9


class Jobs:
    """The background jobs of one user in one guest; made by `Guest.jobs`."""

    def __init__(self, guest: Guest, user: str | None = None):
        self.guest = guest
        self.user = user

    def start(
        self,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | Iterable[bytes] | None = None,
        timeout: float | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> Job:
        """Start a command as a job, and return it when it runs.

        ``stdin`` is stored in the guest first. After ``timeout`` seconds the guest ends it, and all
        that it has started. What it writes beyond ``kept_bytes`` to one output is dropped, and its
        status says so. ``command``, ``env`` and ``cwd`` as in `Guest.run`; raises as that does.
        """
        argv = words_of(command)
        seconds = 0 if timeout is None else max(1, min(round(timeout), _MOST_SECONDS))
        name = "".join(secrets.choice(_LETTERS) for _ in range(8))
        with self.guest.operations.doing("start_job", argv=argv, job=name) as operation:
            self._run(
                "start",
                name,
                str(max(1, kept_bytes // _BLOCK_BYTES)),
                str(seconds),
                "0" if stdin is None else "1",
                script("supervisor.sh"),
                script("sweep.sh"),
                shown(argv),
                *argv,
                env=env,
                cwd=cwd,
                stdin=ByteCount(operation).sending(stdin),
            )
        return Job(self, name)

    def list(self) -> list[JobStatus]:
        """Return all that are there, the oldest first."""
        found = statuses(self._run("list").stdout)
        return sorted(found, key=lambda each: (each.started_at or 0, each.name))

    def get(self, name: str) -> Job:
        """Return the job of that name; whether there is one is found out when it is asked."""
        if not JOB_NAME.match(name):
            raise TargetError(f"{name[:40]!r} is no name of a job", machine=self.guest.machine)
        return Job(self, name)

    def _run(
        self,
        action: str,
        *words: str,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        text = f"{script('room.sh')}\n{script('jobs.sh')}"
        result = self.guest.run(
            ["sh", "-c", text, "vmconnect", action, *words],
            env=env,
            cwd=cwd,
            user=self.user,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout=None if stdin is not None else _ANSWER_SECONDS,
            operation=Operation(),
        )
        if result.exit_code in {0, _RUNNING}:
            return result
        machine = self.guest.machine
        if result.exit_code == _NO_JOB:
            raise TargetError(
                f"there is no job {words[0]}", machine=machine, hint="vmconnect jobs lists them"
            )
        if result.exit_code == _TOO_MANY:
            raise GuestError(
                "there are too many jobs", machine=machine, hint="vmconnect jobs forget --ended"
            )
        lines = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise GuestError(f"the guest cannot keep a job: {lines[-1][:200]}", machine=machine)


class Job:
    """One background job of a guest's; nothing of it is here but its name."""

    def __init__(self, jobs: Jobs, name: str):
        self._jobs = jobs
        self.name = name

    def status(self) -> JobStatus:
        """Return what the guest says of it; raises TargetError when there is no such job."""
        found = statuses(self._jobs._run("show", self.name).stdout)
        if len(found) != 1:
            raise GuestError("the guest says nothing of the job", machine=self._machine)
        return found[0]

    def wait(self, timeout: Deadline | float | None = None) -> JobStatus:
        """Return its status when it runs no more; raises DeadlineError (it runs on)."""
        deadline = Deadline.of(timeout)
        attempt = 0
        while (status := self.status()).state == "running":
            attempt = self._pause(attempt, deadline)
        return status

    def output(
        self,
        stdout: Sink,
        stderr: Sink,
        *,
        follow: bool = False,
        timeout: Deadline | float | None = None,
    ) -> None:
        """Hand what it has written to the sinks; with ``follow`` also what it will, to its end."""
        deadline = Deadline.of(timeout)
        out, err = _Counted(stdout), _Counted(stderr)
        attempt = 0
        while True:
            before = out.count + err.count
            result = self._jobs._run(
                "output", self.name, str(out.count), str(err.count), stdout=out, stderr=err
            )
            if not follow or result.exit_code != _RUNNING:
                return
            attempt = self._pause(0 if out.count + err.count > before else attempt, deadline)

    def result(
        self,
        timeout: Deadline | float | None = None,
        *,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        """Wait for its end, and return what it gave, as `Guest.run` does.

        ``stdout`` and ``stderr`` take what it has written; without them it is kept in the result,
        up to 256 MiB. `output` gives it sooner. Raises GuestError if it is lost and for more
        output than is kept, DeadlineError.
        """
        status = self.wait(timeout)
        if status.state == "lost":
            raise GuestError(
                f"the job {self.name} is lost: the guest has restarted, or it was killed",
                machine=self._machine,
            )
        out, err = bytearray(), bytearray()
        self.output(stdout or keeping(out), stderr or keeping(err))
        begun, ended = status.started_at or 0, status.ended_at or 0
        return Result(
            argv=status.argv,
            exit_code=status.exit_code,
            signal=None,
            stdout=bytes(out),
            stderr=bytes(err),
            seconds=float(max(0, ended - begun)),
        )

    def signal(self, name: str) -> bool:
        """Send it a signal, such as ``"INT"``; whether it was there to get it."""
        with self._operation("signal_job", signal_sent=signal_name(name)):
            return self._sweep("main", signal_name(name)) == 0

    def kill(self) -> None:
        """End it and all that it has started, with SIGTERM first."""
        with self._operation("kill_job"):
            if self._sweep("end", "TERM") not in {0, 1}:
                raise GuestError(f"the job {self.name} cannot be ended", machine=self._machine)

    def forget(self) -> None:
        """Remove all that is kept of it; raises StateError while it runs."""
        with self._operation("forget_job"):
            result = self._jobs._run("forget", self.name)
            if result.exit_code == _RUNNING:
                raise StateError(
                    f"the job {self.name} runs", machine=self._machine, hint="kill it first"
                )

    @property
    def _machine(self) -> str:
        return self._jobs.guest.machine

    def _sweep(self, what: str, name: str) -> int | None:
        self.status()
        return self._jobs.guest.run(
            ["sh", "-c", script("sweep.sh"), "vmconnect", f"job.{self.name}.", what, name],
            user=self._jobs.user,
            timeout=_ANSWER_SECONDS,
            operation=Operation(),
        ).exit_code

    def _operation(self, name: str, **details: str) -> AbstractContextManager[Operation]:
        return self._jobs.guest.operations.doing(name, job=self.name, **details)

    def _pause(self, attempt: int, deadline: Deadline) -> int:
        pause = _POLL_SECONDS[min(attempt, len(_POLL_SECONDS) - 1)]
        left = deadline.remaining(at_most=pause)
        time.sleep(pause if left is None else left)
        if deadline.passed:
            raise DeadlineError(f"timed out; the job {self.name} runs on", machine=self._machine)
        return attempt + 1


class _Counted:
    """A sink that knows how much it was given."""

    def __init__(self, sink: Sink):
        self._sink = sink
        self.count = 0

    def __call__(self, data: bytes) -> None:
        self.count += len(data)
        self._sink(data)
