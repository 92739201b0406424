"""A program that a guest's agent runs: its start, its status, its end."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vmconnect.deadline import Deadline
from vmconnect.direct.agent.answer import Answer
from vmconnect.errors import (
    CommandLostError,
    ConnectionLostError,
    DeadlineError,
    GuestError,
    VmconnectError,
)

if TYPE_CHECKING:
    from vmconnect.direct.agent.guest_agent import GuestAgent

__all__ = ["Program", "Status"]

# qemu-ga keeps no more of each of a command's outputs, and tells that there was more.
_OUTPUT_BYTES = 16 << 20
_MOST_PID = 1 << 63
# The first look comes after so long; later ones after an eighth of the time that it has run.
_FIRST_PAUSE, _LONGEST_PAUSE, _FRACTION = 0.001, 0.25, 8
# A question that has had no answer is asked again: the agent may have been busy, or away.
_ANSWER_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
_END_SECONDS, _END_PAUSE = 10.0, 0.05
# GLib's words for what execve(2) has refused, and what a shell would end with.
_NOT_FOUND, _NOT_EXECUTABLE = "No such file or directory", "Permission denied"
_SHELL_CODES = {_NOT_FOUND: 127, _NOT_EXECUTABLE: 126}
# Has the program in a process group of its own, so that its children can be ended with it. It is
# no group's first process when it starts, so it stays the same process.
_OWN_GROUP = "setsid"
_END = """
kill -s TERM -- "$1" || exit 0
for turn in 1 2 3 4 5 6 7 8 9 10; do kill -s 0 -- "$1" || exit 0; sleep 0.1; done
kill -s KILL -- "$1"
"""


@dataclass(frozen=True, slots=True)
class Status:
    """How a program has ended, and what it wrote; `truncated` if that was more than is kept."""

    exit_code: int | None
    signal: str | None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False


class Program:
    """A program that was started by `start`, and runs until it says otherwise."""

    def __init__(self, agent: GuestAgent, argv: Sequence[str], pid: int, *, grouped: bool):
        self.argv = tuple(argv)
        self.pid = pid
        self._agent = agent
        self._grouped = grouped
        self._started = time.monotonic()
        self._heard = self._started

    @classmethod
    def start(
        cls,
        agent: GuestAgent,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        stdin: bytes = b"",
        environment: Sequence[str] | None = None,
        capture: bool = True,
        grouped: bool = True,
    ) -> Program | Status:
        """Start a program, or return how a shell would have ended that could not.

        Without ``grouped`` it is started sooner, and is ended without its children.
        ``environment`` has ``NAME=VALUE`` for all of it. Raises CommandLostError if it may or may
        not have started.
        """
        more: dict[str, Any] = {}
        if stdin:
            more["input_data"] = base64.b64encode(stdin).decode("ascii")
        if environment is not None:
            more["env"] = [*environment]

        def start(words: Sequence[str]) -> int:
            command = "guest-exec"
            answer = agent.execute(
                command,
                path=words[0],
                arg=[*words[1:]],
                capture_output=capture,
                timeout=deadline,
                **more,
            )
            return Answer(answer, command).number("pid", _MOST_PID)

        try:
            if grouped and agent.has_groups:
                try:
                    return cls(agent, argv, start([_OWN_GROUP, *argv]), grouped=True)
                except GuestError as error:
                    if _NOT_FOUND not in error.message:
                        raise
                    agent.has_groups = False
            return cls(agent, argv, start(argv), grouped=False)
        except GuestError as error:
            for reason, code in _SHELL_CODES.items():
                if reason in error.message:
                    return Status(code, None, stderr=f"{argv[0]}: {reason}\n".encode())
            raise
        except (ConnectionLostError, DeadlineError) as error:
            raise CommandLostError(
                f"{error.message}: it may have started",
                argv=argv,
                started=False,
                machine=agent.machine,
                hint=error.hint,
            ) from error

    def wait(self, deadline: Deadline) -> Status:
        """Return when it has ended; else as `poll`. It is ended if that is not to be."""
        with self.ended_on_error():
            while (status := self.poll(deadline)) is None:
                self.pause(deadline)
            return status

    def pause(self, deadline: Deadline) -> None:
        """Wait until it is time to look again; DeadlineError if there is none left."""
        run = time.monotonic() - self._started
        pause = min(max(_FIRST_PAUSE, run / _FRACTION), _LONGEST_PAUSE)
        time.sleep(deadline.remaining(at_most=pause) or 0)
        deadline.check(f"{self.argv[0]} ran")

    def poll(self, deadline: Deadline) -> Status | None:
        """Return how it has ended, or None while it runs, or while the agent does not answer.

        Raises CommandLostError when the agent has forgotten it, or has not answered for a minute.
        """
        command = "guest-exec-status"
        try:
            answer = Answer(
                self._agent.execute(
                    command, pid=self.pid, timeout=deadline.sooner(_ANSWER_SECONDS)
                ),
                command,
            )
        except DeadlineError as error:
            if time.monotonic() - self._heard > _SILENCE_SECONDS:
                raise self._lost("the guest agent has gone silent") from error
            return None
        except GuestError as error:
            raise self._lost("the guest agent has started anew meanwhile") from error
        except ConnectionLostError as error:
            raise self._lost(error.message) from error
        self._heard = time.monotonic()
        if not answer.flag("exited"):
            return None
        signal = answer.some_number("signal", 1 << 31)
        return Status(
            exit_code=answer.some_number("exitcode", 1 << 33) if signal is None else None,
            signal=None if signal is None else _signal_name(signal),
            stdout=answer.data("out-data", _OUTPUT_BYTES),
            stderr=answer.data("err-data", _OUTPUT_BYTES),
            truncated=answer.flag("out-truncated") or answer.flag("err-truncated"),
        )

    @contextlib.contextmanager
    def ended_on_error(self) -> Iterator[None]:
        """End it if the block ends with an error; a DeadlineError then tells whether it has."""
        try:
            yield
        except DeadlineError as error:
            known = "and was ended" if self.end() else "and may still run"
            raise DeadlineError(
                f"{self.argv[0]} took longer than it was given, {known}",
                machine=self._agent.machine,
            ) from error
        except CommandLostError:
            raise
        except BaseException:
            self.end()
            raise

    def end(self) -> bool:
        """End it, and the processes that it started, and return whether it has ended.

        They are asked to (TERM), and a second later made to (KILL). On Windows they are made to.
        """
        deadline = Deadline(_END_SECONDS)
        try:
            ender = Program.start(
                self._agent, self._ending(deadline), deadline, capture=False, grouped=False
            )
            if isinstance(ender, Status):
                return False
            # The agent keeps what has ended until it is asked for it.
            for each in (self, ender):
                while each.poll(deadline) is None:
                    time.sleep(deadline.remaining(at_most=_END_PAUSE) or 0)
                    deadline.check("it ended")
        except VmconnectError:
            return False
        return True

    def _ending(self, deadline: Deadline) -> Sequence[str]:
        """Return the program that ends this one, and its arguments."""
        if self._grouped:
            return ("sh", "-c", _END, "sh", f"-{self.pid}")
        if self._agent.is_windows(deadline):
            return ("taskkill", "/T", "/F", "/PID", str(self.pid))
        return ("sh", "-c", _END, "sh", str(self.pid))

    def _lost(self, why: str) -> CommandLostError:
        return CommandLostError(
            f"{why}: it had started; how it ended is not known",
            argv=self.argv,
            started=True,
            machine=self._agent.machine,
            hint="did the guest power off or restart?",
        )


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
