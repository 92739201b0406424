"""The guest agent's commands (QEMU qga/qapi-schema.json)."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import Answer
from vmconnect.direct.agent.copying import download, upload
from vmconnect.direct.agent.file import GuestFile
from vmconnect.direct.agent.freezing import freeze, freeze_status, thaw
from vmconnect.direct.agent.powershell import PowerShellResult, Script
from vmconnect.direct.agent.questions import AgentQuestions, Timeout
from vmconnect.direct.agent.run import Sink, run
from vmconnect.direct.result import Result
from vmconnect.errors import GuestError, UnsupportedError, VmconnectError
from vmconnect.progress import Progress, Silent
from vmconnect.secret import Secret, forget_frames

__all__ = ["GuestAgent"]

_TIMEOUT = 10.0
# What takes the guest's programs, or all of its disks.
_SLOW = 60.0
# What the agent says of a shutdown(8) that was killed: by the shutdown, with all other programs.
_ENDED_TOO = "terminated abnormally"


class GuestAgent(AgentQuestions):
    """One guest's agent. It is as root there, and asks nobody who we are.

    Every command takes a deadline, and raises GuestError when the agent refuses, UnsupportedError
    when it has no such command or does not permit it, DeadlineError when it does not answer (it
    need not be running), ConnectionLostError, and AgentError when it breaks its protocol.
    """

    _holds_still = False

    # Programs.

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: Timeout = 30.0,
    ) -> Result:
        """Run a program as the agent's user, root, and return what it gave.

        Without sinks its output is kept by the guest, up to 16 MiB of each stream: GuestError if it
        was more. With one for either, ``stdout`` and ``stderr`` take bytes as they come, of any
        number, by way of a file in the guest; in Windows they come at the end, and are limited as
        without. ``stdin`` is there in whole before the program starts. ``env`` is added to the
        agent's own environment. A program that is not found gives exit code 127, one that cannot be
        executed 126.

        After ``timeout``, or when this is interrupted, the program is ended with its children, and
        DeadlineError says if that cannot be told. Raises CommandLostError when the agent starts
        anew meanwhile, or falls silent for a minute: it is never run again by itself.
        """
        started = time.perf_counter()
        with self.operations.doing("run", argv=tuple(argv)) as operation:
            status, out, err = run(
                self, argv, stdin, (stdout, stderr), env, cwd, Deadline.of(timeout)
            )
            operation.received = len(out) + len(err)
            operation.details |= {"exit_code": status.exit_code, "signal": status.signal}
        return Result(
            argv=tuple(argv),
            exit_code=status.exit_code,
            signal=status.signal,
            stdout=out,
            stderr=err,
            seconds=time.perf_counter() - started,
        )

    def powershell(
        self,
        script: str,
        *,
        depth: int = 4,
        program: str = "powershell.exe",
        timeout: Timeout = _SLOW,
    ) -> PowerShellResult:
        """Run a script of PowerShell's, and return the objects that it puts out.

        ``depth`` is how deep objects within them are told (ConvertTo-Json); else as `run`.
        """
        ready = Script(script, depth)
        result = self.run(ready.argv(program), stdin=ready.stdin, timeout=timeout)
        return ready.read(result, self.machine)

    # Files.

    def open(self, path: str, mode: str = "rb", timeout: Timeout = _TIMEOUT) -> GuestFile:
        """Open a file of the guest's; ``mode`` is fopen(3)'s.

        New files may be written to by all (QEMU's doing): `put` makes them as they should be.
        """
        with self.operations.doing("open", remote=path, mode=mode):
            return GuestFile.open(self, path, mode, Deadline.of(timeout))

    def read_file(self, path: str, *, limit: int, timeout: Timeout = _TIMEOUT) -> bytes:
        """Return a file of the guest's; GuestError also if it has more than ``limit`` bytes."""
        deadline = Deadline.of(timeout)
        data = bytearray()
        with GuestFile.open(self, path, "rb", deadline) as file:
            while chunk := file.read(timeout=deadline):
                data += chunk
                if len(data) > limit:
                    raise GuestError(f"{path} has more than {limit} bytes", machine=self.machine)
        return bytes(data)

    def put(
        self,
        local: Path | str,
        remote: str,
        *,
        progress: Progress | None = None,
        timeout: Timeout = None,
    ) -> int:
        """Copy a file into the guest, with its permissions, and return its size in bytes.

        It gets its name only when it is whole; what had it before is replaced at once. Raises
        ResourceError for the local file, GuestError for the remote one.
        """
        with self.operations.doing("put", local=str(local), remote=remote) as operation:
            operation.sent = upload(self, local, remote, progress or Silent(), Deadline.of(timeout))
            return operation.sent

    def get(
        self,
        remote: str,
        local: Path | str,
        *,
        progress: Progress | None = None,
        timeout: Timeout = None,
    ) -> int:
        """Copy a file out of the guest and return its size in bytes; else as `put`."""
        with self.operations.doing("get", local=str(local), remote=remote) as operation:
            operation.received = download(
                self, remote, local, progress or Silent(), Deadline.of(timeout)
            )
            return operation.received

    # Who may come in.

    def set_password(
        self,
        user: str,
        password: Secret | str,
        *,
        crypted: bool = False,
        timeout: Timeout = _SLOW,
    ) -> None:
        """Set a user's password; ``crypted`` is one that is hashed already, as crypt(3) has it."""
        password = Secret.of(password)
        with self.operations.doing("set_password", user=user, crypted=crypted):
            try:
                self.execute(
                    "guest-set-user-password",
                    username=user,
                    password=base64.b64encode(password.reveal().encode()).decode("ascii"),
                    crypted=crypted,
                    timeout=timeout,
                )
            except BaseException as error:
                forget_frames(error)
                raise

    def authorized_keys(self, user: str, timeout: Timeout = _TIMEOUT) -> tuple[str, ...]:
        """Return the lines of the user's ``~/.ssh/authorized_keys`` that are no comments.

        GuestError if there is no such file, or user.
        """
        command = "guest-ssh-get-authorized-keys"
        return Answer(self.execute(command, username=user, timeout=timeout), command).texts("keys")

    def add_authorized_keys(
        self, user: str, keys: Sequence[str], timeout: Timeout = _TIMEOUT
    ) -> None:
        """Add lines to the user's ``~/.ssh/authorized_keys``, which is made if need be."""
        with self.operations.doing("add_keys", user=user, keys=len(keys)):
            self.execute(
                "guest-ssh-add-authorized-keys", username=user, keys=[*keys], timeout=timeout
            )

    def remove_authorized_keys(
        self, user: str, keys: Sequence[str], timeout: Timeout = _TIMEOUT
    ) -> None:
        """Remove lines from there; those that are not there do no harm."""
        with self.operations.doing("remove_keys", user=user, keys=len(keys)):
            self.execute(
                "guest-ssh-remove-authorized-keys", username=user, keys=[*keys], timeout=timeout
            )

    # Its clock.

    def set_time(self, seconds: float | None = None, timeout: Timeout = _SLOW) -> None:
        """Set the guest's clock, to its hardware's time unless one is given (as after a pause)."""
        more = {} if seconds is None else {"time": round(seconds * 1e9)}
        with self.operations.doing("set_time", time=seconds):
            self.execute("guest-set-time", timeout=timeout, **more)

    # Its file systems, at rest.

    @contextlib.contextmanager
    def frozen(
        self, mountpoints: Sequence[str] | None = None, timeout: Timeout = _SLOW
    ) -> Iterator[int]:
        """Hold the guest's file systems still for a ``with`` block; gives how many are.

        All, or those that are mounted there; ``timeout`` is to freeze them. What the guest has
        told its programs to be on disk is there then, and what writes waits: be quick. They are
        thawed whatever happens in the block. GuestError if that fails, as it does where some have
        thawed before (Windows sees to that after ten seconds): they were not still all along.
        """
        try:
            self._holds_still = True
            count = self.freeze(mountpoints, timeout)
        except (GuestError, UnsupportedError):
            self._holds_still = False  # Then none is.
            raise
        except BaseException:
            self.thaw()
            raise
        try:
            yield count
        except BaseException:
            if self._holds_still:
                self.thaw()
            raise
        if not self._holds_still or self.thaw() < count:
            raise GuestError(
                "some of its file systems thawed before they were told to", machine=self.machine
            )

    def freeze(self, mountpoints: Sequence[str] | None = None, timeout: Timeout = _SLOW) -> int:
        """Freeze the guest's file systems until `thaw`, and return how many; see `frozen`."""
        with self.operations.doing("freeze"):
            return freeze(self, mountpoints, Deadline.of(timeout))

    def thaw(self, timeout: Timeout = _SLOW) -> int:
        """Thaw the guest's file systems, and return how many were frozen."""
        with self.operations.doing("thaw"):
            count = thaw(self, Deadline.of(timeout))
        self._holds_still = False
        return count

    def freeze_status(self, timeout: Timeout = _TIMEOUT) -> Literal["frozen", "thawed"]:
        """Return whether any file system is frozen by the agent."""
        return freeze_status(self, Deadline.of(timeout))

    # Its power.

    def shut_down(self, mode: Literal["powerdown", "halt", "reboot"] = "powerdown") -> None:
        """Have the guest shut itself down; returns when it has begun to."""
        with self.operations.doing("shutdown", mode=mode):
            self.ping()
            try:
                self.order("guest-shutdown", mode=mode)
            except GuestError as error:
                if _ENDED_TOO not in error.message:
                    raise

    def suspend(self, mode: Literal["ram", "disk", "hybrid"] = "ram") -> None:
        """Have the guest suspend itself; returns when it has begun to."""
        with self.operations.doing("suspend", mode=mode):
            self.ping()
            self.order(f"guest-suspend-{mode}")

    def close(self) -> None:
        """Leave the agent to the next; what is `frozen` is thawed before."""
        if self._holds_still:
            with contextlib.suppress(VmconnectError):
                self.thaw(_TIMEOUT)
        super().close()
