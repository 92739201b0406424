"""Named sessions: a shell, or a Python, in the guest that keeps its state between calls.

It lives in the guest, with no parent of ours, and is spoken to through FIFOs in a private
directory of its user (`scripts/sessions.sh`): so it outlives connections, brokers and hosts, every
caller that knows its name finds it, and a guest needs no more than a shell. A call's outputs are
FIFOs of its own, carried by an SSH channel of its own: they stay apart, any bytes may pass, and who
reads slowly slows what runs. Calls queue in the session's one FIFO, and are done one by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from vmconnect.deadline import Deadline
from vmconnect.direct.byte_count import ByteCount
from vmconnect.direct.command import Words, script
from vmconnect.direct.control import Control, Reach, signal_name
from vmconnect.direct.named_call import SESSION_NAME, Call, NamedStatus, SessionKind, statuses
from vmconnect.direct.pump import Sink
from vmconnect.direct.result import Result
from vmconnect.errors import GuestError, StateError, TargetError, VmconnectError
from vmconnect.operation import Operation

if TYPE_CHECKING:
    from vmconnect.direct.guest import Guest

__all__ = ["NamedSession", "named_sessions"]

_ANSWER_SECONDS = 60.0
_SIGNAL_SECONDS = 10.0
_END_SECONDS = 30.0
_NO_SESSION, _ALIVE, _TOO_MANY, _ENDED, _OTHER_KIND = 91, 92, 93, 94, 95
# How a call ends that a session has not answered: by a signal, or where something in between has
# made an exit code of that.
_DIED_SIGNAL, _DIED_CODE = "USR2", 128 + 12


class NamedSession:
    """A session that keeps its directory, variables and functions between calls.

    Made by `Guest.named`; the first call starts it in the guest, if it is not there. As a context
    manager it is closed at the end; else it stays until it is closed, by whoever knows its name.
    """

    def __init__(
        self, guest: Guest, name: str, *, kind: SessionKind = "shell", user: str | None = None
    ):
        """Take a name of letters, digits, ``_``, ``.``, ``-``; raises TargetError for another."""
        if not SESSION_NAME.match(name):
            raise TargetError(f"{name[:80]!r} is no name of a session", machine=guest.machine)
        self.guest = guest
        self.name = name
        self.kind = kind
        self.user = user

    def run(
        self,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | Iterable[bytes] | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        timeout: Deadline | float | None = None,
        on_start: Callable[[Control], object] | None = None,
    ) -> Result:
        """Have the session do something, after all that others had it do, and return what it gave.

        A text is a script for the session's shell, or source for its Python, which shows the value
        of a last expression as at its prompt; several words are one command of a shell. ``env`` and
        ``cwd`` are set first, and stay. Streams, ``timeout`` and ``on_start`` as in `Guest.run`;
        what is ended, by time-out or Ctrl-C, is the call and what it has started, and the session
        lives on, unless its shell itself cannot be stopped otherwise.

        Raises StateError when the session has ended before or in this call; its state is lost then,
        and its name is free again once it is closed. Else as `Guest.run`.
        """
        call = Call.of(self.kind, command, env=env, cwd=cwd)
        argv = (command,) if isinstance(command, str) else tuple(command)
        interpreter = "python3" if self.kind == "python" else "sh"
        told = (interpreter, "-c", *argv) if isinstance(command, str) else argv
        operations = self.guest.operations
        with operations.doing("session_run", argv=told, session=self.name) as operation:
            count = ByteCount(operation)
            result = self._call(
                call,
                count.sending(stdin),
                stdout=count.receiving(stdout),
                stderr=count.receiving(stderr),
                timeout=timeout,
                on_start=on_start,
            )
            count.received(len(result.stdout) + len(result.stderr))
            operation.details |= {"exit_code": result.exit_code, "signal": result.signal}
            return replace(result, argv=argv)

    def _call(self, call: Call, stdin: bytes | Iterable[bytes] | None, **options: Any) -> Result:
        """Have it done, as part of an operation; ``options`` are those of `Guest.run`."""
        loop = "session_python.py" if self.kind == "python" else "session_shell.sh"
        words = self._words(
            "call",
            call.name,
            "0" if stdin is None else "1",
            call.end,
            self.kind,
            f"{script('room.sh')}\n{script('keeper.sh')}",
            script(loop),
        )
        result = self.guest.run(
            words,
            user=self.user,
            stdin=call.input(stdin),
            control=functools.partial(_CallControl, self, call.name),
            operation=Operation(),
            **options,
        )
        died = result.signal == _DIED_SIGNAL or result.exit_code in {_DIED_CODE, _ENDED}
        if died and (how := self._how_ended()) is not None:
            raise how
        if result.exit_code in {_TOO_MANY, _OTHER_KIND} and not self._is_there():
            raise self._refusal(result)
        return result

    def close(self) -> None:
        """End it, with what runs in it, and forget it; nothing happens where there is none."""
        with self.guest.operations.doing("session_close", session=self.name):
            code = self._do("close", script("sweep.sh")).exit_code
            if code not in {0, _NO_SESSION}:
                raise GuestError(f"the session {self.name} cannot be closed", machine=self._machine)

    def status(self) -> NamedStatus | None:
        """Return what the guest says of it; None if there is none."""
        found = named_sessions(self.guest, self.user)
        return next((each for each in found if each.name == self.name), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except VmconnectError:
            if error is None:
                raise

    def call_words(self, action: str, call: str, name: str) -> list[str]:
        """Return the command that sends a call a signal, or stops it."""
        return self._words(action, call, name, script("sweep.sh"))

    @property
    def _machine(self) -> str:
        return self.guest.machine

    def _words(self, action: str, *words: str) -> list[str]:
        return _words(action, self.name, *words)

    def _do(self, action: str, *words: str) -> Result:
        return self.guest.run(
            self._words(action, *words),
            user=self.user,
            timeout=_ANSWER_SECONDS,
            operation=Operation(),
        )

    def _how_ended(self) -> StateError | None:
        """Return the error for a session that has ended; None if it has not."""
        result = self._do("ended")
        if result.exit_code == _ALIVE:
            return None
        code = result.text.strip()
        if code.isdecimal() and len(code) < 4:
            how = f"has ended, with exit code {code}"
            if code == "127" and self.kind == "python":
                how = "could not start: the guest has no python3"
        else:
            how = "has ended: the guest has restarted, or it was killed"
        return StateError(
            f"the session {self.name} {how}", machine=self._machine, hint="close it to begin anew"
        )

    def _is_there(self) -> bool:
        status = self.status()
        return status is not None and status.kind == self.kind

    def _refusal(self, result: Result) -> VmconnectError:
        if result.exit_code == _OTHER_KIND:
            other = "a shell" if self.kind == "python" else "Python"
            return StateError(f"the session {self.name} runs {other}", machine=self._machine)
        return GuestError("there are too many sessions", machine=self._machine, hint="close some")


class _CallControl(Control):
    """Reaches what a session does for one call, and not the session."""

    def __init__(self, session: NamedSession, call: str, mark: str, reach: Reach):
        super().__init__(mark, reach)
        self._session = session
        self._call = call
        self._ask = reach

    def signal(self, name: str) -> bool:
        words = self._session.call_words("signal", self._call, signal_name(name))
        return self._ask(words, _SIGNAL_SECONDS) == 0

    def end(self, first: str = "TERM") -> bool:
        try:
            ended = self._ask(self._session.call_words("stop", self._call, first), _END_SECONDS)
        except VmconnectError:
            return False
        return super().end(first) and ended in {0, 1, _NO_SESSION}


def named_sessions(guest: Guest, user: str | None = None) -> list[NamedStatus]:
    """Return the named sessions of whom we log in as, or of another user, by name."""
    words = _words("list")
    result = guest.run(words, user=user, timeout=_ANSWER_SECONDS, operation=Operation())
    if not result.ok:
        reason = result.stderr.decode("utf-8", "replace").strip()[-200:]
        raise GuestError(f"the guest has no place for sessions: {reason}", machine=guest.machine)
    return sorted(statuses(result.stdout), key=lambda each: each.name)


def _words(*words: str) -> list[str]:
    return ["sh", "-c", f"{script('room.sh')}\n{script('sessions.sh')}", "vmconnect", *words]
