"""The guest agent's commands (QEMU qga/qapi-schema.json).

Whatever the guest says is checked for its shape, and bounded; what it says may still be a lie.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.channel import AgentChannel
from vmconnect.direct.result import Result
from vmconnect.errors import AgentError, GuestError, UnsupportedError, VmconnectError

__all__ = ["AgentInfo", "GuestAgent", "OsInfo"]

T = TypeVar("T")

_TIMEOUT = 10.0
_READ_BYTES = 1 << 16
_REASON_CHARACTERS = 300
_TEXT_CHARACTERS = 256
_MOST_KEYS = 4096
_DAY_SECONDS = 86400
# qemu-ga keeps no more of each of a command's outputs, and tells that there was more.
_OUTPUT_BYTES = 16 << 20
_POLL_SECONDS = (0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Which agent answers: its version, and the commands that it has and permits."""

    version: str
    commands: frozenset[str]


@dataclass(frozen=True, slots=True)
class OsInfo:
    """The guest's operating system, as its os-release(5) has it; empty where it does not tell."""

    id: str
    name: str
    version: str
    kernel: str
    machine: str


class GuestAgent:
    """One guest's agent. It is as root there, and asks nobody who we are.

    Every command takes a deadline, and raises GuestError when the agent refuses, UnsupportedError
    when it has no such command or does not permit it, DeadlineError when it does not answer (it
    need not be running), ConnectionLostError, and AgentError when it breaks its protocol.
    """

    def __init__(self, channel: AgentChannel, machine: str):
        """Take over ``channel``; ``machine`` is for errors."""
        self.machine = machine
        self._channel = channel

    def execute(
        self, command: str, *, timeout: Deadline | float | None = _TIMEOUT, **arguments: Any
    ) -> Any:
        """Run any command and return its answer; underscores in arguments become hyphens."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        reply = self._channel.exchange(command, named, Deadline.of(timeout))
        if "return" in reply:
            return reply["return"]
        raise self._refusal(command, reply.get("error"))

    def ping(self, timeout: Deadline | float | None = _TIMEOUT) -> None:
        """Return if the agent answers."""
        self.execute("guest-ping", timeout=timeout)

    def info(self, timeout: Deadline | float | None = _TIMEOUT) -> AgentInfo:
        """Return which agent it is, and what it can."""
        answer = _shaped(self.execute("guest-info", timeout=timeout), dict, "guest-info")
        commands = _shaped(answer.get("supported_commands", []), list, "guest-info")
        return AgentInfo(
            _text(answer.get("version")),
            frozenset(
                _text(each.get("name"))
                for each in commands
                if isinstance(each, dict) and each.get("enabled")
            ),
        )

    def os_info(self, timeout: Deadline | float | None = _TIMEOUT) -> OsInfo:
        """Return what the guest runs."""
        command = "guest-get-osinfo"
        answer = _shaped(self.execute(command, timeout=timeout), dict, command)
        return OsInfo(
            id=_text(answer.get("id")),
            name=_text(answer.get("pretty-name") or answer.get("name")),
            version=_text(answer.get("version-id")),
            kernel=_text(answer.get("kernel-release")),
            machine=_text(answer.get("machine")),
        )

    def time(self, timeout: Deadline | float | None = _TIMEOUT) -> float:
        """Return the guest's clock, in seconds since 1970, UTC."""
        nanoseconds = self.execute("guest-get-time", timeout=timeout)
        return _number(nanoseconds, 1 << 63, "guest-get-time") / 1e9

    def utc_offset(self, timeout: Deadline | float | None = _TIMEOUT) -> int:
        """Return how many seconds the guest's time zone is now before UTC."""
        command = "guest-get-timezone"
        answer = _shaped(self.execute(command, timeout=timeout), dict, command)
        return _number(answer.get("offset"), _DAY_SECONDS, command)

    def read_file(
        self, path: str, *, limit: int, timeout: Deadline | float | None = _TIMEOUT
    ) -> bytes:
        """Return a file of the guest's; GuestError also if it has more than ``limit`` bytes."""
        deadline = Deadline.of(timeout)
        handle = self.execute("guest-file-open", path=path, mode="r", timeout=deadline)
        data = bytearray()
        try:
            while True:
                answer = _shaped(
                    self.execute(
                        "guest-file-read", handle=handle, count=_READ_BYTES, timeout=deadline
                    ),
                    dict,
                    "guest-file-read",
                )
                chunk = self._bytes(answer.get("buf-b64"), _READ_BYTES)
                data += chunk
                if len(data) > limit:
                    raise GuestError(f"{path} has more than {limit} bytes", machine=self.machine)
                if answer.get("eof") or not chunk:
                    return bytes(data)
        finally:
            with contextlib.suppress(VmconnectError):
                self.execute("guest-file-close", handle=handle, timeout=deadline)

    def authorized_keys(
        self, user: str, timeout: Deadline | float | None = _TIMEOUT
    ) -> tuple[str, ...]:
        """Return the lines of the user's ``~/.ssh/authorized_keys`` that are no comments.

        GuestError if there is no such file, or user.
        """
        command = "guest-ssh-get-authorized-keys"
        answer = _shaped(self.execute(command, username=user, timeout=timeout), dict, command)
        keys = _shaped(answer.get("keys"), list, command)
        if len(keys) > _MOST_KEYS or not all(isinstance(each, str) for each in keys):
            raise AgentError(f"a senseless answer to {command}", machine=self.machine)
        return tuple(keys)

    def add_authorized_keys(
        self, user: str, keys: Sequence[str], timeout: Deadline | float | None = _TIMEOUT
    ) -> None:
        """Add lines to the user's ``~/.ssh/authorized_keys``, which is made if need be."""
        self.execute("guest-ssh-add-authorized-keys", username=user, keys=[*keys], timeout=timeout)

    def remove_authorized_keys(
        self, user: str, keys: Sequence[str], timeout: Deadline | float | None = _TIMEOUT
    ) -> None:
        """Remove lines from there; those that are not there do no harm."""
        self.execute(
            "guest-ssh-remove-authorized-keys", username=user, keys=[*keys], timeout=timeout
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: Deadline | float | None = 30.0,
    ) -> Result:
        """Run a program as the agent's user, root, and return what it gave.

        Its output is kept by the guest, up to 16 MiB of each stream; GuestError if it was more.
        The deadline ends our waiting for the program, not the program.
        """
        deadline, started = Deadline.of(timeout), time.perf_counter()
        more = {} if stdin is None else {"input_data": base64.b64encode(stdin).decode()}
        answer = self.execute(
            "guest-exec",
            path=argv[0],
            arg=[*argv[1:]],
            capture_output=True,
            timeout=deadline,
            **more,
        )
        pid = _number(_shaped(answer, dict, "guest-exec").get("pid"), 1 << 63, "guest-exec")
        status = self._exited(pid, deadline)
        if status.get("out-truncated") or status.get("err-truncated"):
            raise GuestError(
                f"{argv[0]} wrote more than the guest agent keeps", machine=self.machine
            )
        code, signal = status.get("exitcode"), status.get("signal")
        return Result(
            argv=tuple(argv),
            exit_code=code if type(code) is int and signal is None else None,
            signal=_signal_name(signal) if type(signal) is int else None,
            stdout=self._bytes(status.get("out-data"), _OUTPUT_BYTES),
            stderr=self._bytes(status.get("err-data"), _OUTPUT_BYTES),
            seconds=time.perf_counter() - started,
        )

    def close(self) -> None:
        """Leave the agent to the next."""
        self._channel.close()

    def _exited(self, pid: int, deadline: Deadline) -> dict[str, Any]:
        """Wait for a program's end and return its status."""
        attempt = 0
        while True:
            answer = self.execute("guest-exec-status", pid=pid, timeout=deadline)
            status = _shaped(answer, dict, "guest-exec-status")
            if status.get("exited"):
                return status
            pause = _POLL_SECONDS[min(attempt, len(_POLL_SECONDS) - 1)]
            attempt += 1
            time.sleep(deadline.remaining(at_most=pause) or 0)
            deadline.check("waiting for the guest agent's command")

    def _bytes(self, encoded: Any, most: int) -> bytes:
        """Return what a Base64 text holds; AgentError if it is none, or more than was asked for."""
        if encoded is None:
            return b""
        try:
            data = base64.b64decode(_shaped(encoded, str, "a request for bytes"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise AgentError("no Base64 where it should be", machine=self.machine) from error
        if len(data) > most:
            raise AgentError(f"{len(data)} bytes instead of {most}", machine=self.machine)
        return data

    def _refusal(self, command: str, error: Any) -> VmconnectError:
        if not isinstance(error, dict):
            return AgentError(f"an answer to {command} that is none", machine=self.machine)
        reason = _text(error.get("desc"), _REASON_CHARACTERS)
        if error.get("class") == "CommandNotFound" or "has been disabled" in reason:
            return UnsupportedError(
                f"its guest agent does not permit {command}",
                machine=self.machine,
                hint="see --block-rpcs and --allow-rpcs in the guest's configuration of qemu-ga",
            )
        return GuestError(f"its guest agent refused {command}: {reason}", machine=self.machine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shaped(value: Any, kind: type[T], what: str) -> T:
    """Return ``value`` if it is of that kind; AgentError if not."""
    if not isinstance(value, kind):
        raise AgentError(f"a senseless answer to {what}")
    return value


def _number(value: Any, below: int, what: str) -> int:
    """Return an integer between -``below`` and ``below``; AgentError if it is none."""
    if type(value) is not int or not -below < value < below:  # Python takes true for a 1.
        raise AgentError(f"a senseless answer to {what}")
    return value


def _text(value: Any, most: int = _TEXT_CHARACTERS) -> str:
    """Return what may be shown of a text of the guest's."""
    text = value[:most] if isinstance(value, str) else ""
    return "".join(char if char.isprintable() else "?" for char in text)


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
