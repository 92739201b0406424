"""What one call of a named session is in bytes, and what a guest says of its sessions. No I/O."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from vmconnect.direct.command import Words
from vmconnect.errors import GuestError, UnsupportedError

__all__ = ["Call", "NamedStatus", "SessionKind", "SessionState", "statuses"]

SessionKind = Literal["shell", "python"]
SessionState = Literal["ready", "busy", "ended"]

SESSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)

_KINDS: tuple[SessionKind, ...] = ("shell", "python")
_STATES: tuple[SessionState, ...] = ("ready", "busy", "ended")
_DIGITS = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_FEED_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class NamedStatus:
    """A named session, as its guest tells of it.

    ``exit_code`` is what it has ended with, where that is known. ``started_at`` is in seconds since
    1970, by the guest's clock.
    """

    name: str
    kind: SessionKind
    state: SessionState
    exit_code: int | None
    started_at: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """A text for a named session to do.

    It goes over the call's input: the text, a line that no text has, and then what is the text's
    own input. So it may be of any length, and shows on no command line.
    """

    name: str
    text: bytes
    end: str

    @classmethod
    def of(
        cls,
        kind: SessionKind,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Call:
        """Prepare a call; raises UnsupportedError for what no session can be told.

        Several words are one command for a shell, a text is its script; Python takes a text alone.
        """
        if kind == "python" and not isinstance(command, str):
            raise UnsupportedError("a session of Python takes its source as one text")
        text = command if isinstance(command, str) else shlex.join(command)
        before = _of_python(env or {}, cwd) if kind == "python" else _of_shell(env or {}, cwd)
        data = (before + text).encode("utf-8", "surrogateescape")
        if b"\0" in data:
            raise UnsupportedError("a command cannot have a null character in it")
        return cls(secrets.token_hex(8), data, f"vmconnect-{secrets.token_hex(16)}")

    def input(self, stdin: bytes | Iterable[bytes] | None) -> Iterator[bytes]:
        """Give what goes over the call's input."""
        head = self.text + b"\n" + self.end.encode() + b"\n"
        for start in range(0, len(head), _FEED_BYTES):
            yield head[start : start + _FEED_BYTES]
        if isinstance(stdin, bytes):
            for start in range(0, len(stdin), _FEED_BYTES):
                yield stdin[start : start + _FEED_BYTES]
        elif stdin is not None:
            yield from stdin


def _of_shell(env: Mapping[str, str], cwd: str | None) -> str:
    parts = [] if cwd is None else [f"CDPATH= cd -- {shlex.quote(cwd)} || return 1\n"]
    parts += [f"export {_name(name)}={shlex.quote(value)}\n" for name, value in env.items()]
    return "".join(parts)


def _of_python(env: Mapping[str, str], cwd: str | None) -> str:
    parts = [] if cwd is None else [f"__import__('os').chdir({cwd!a}); "]
    parts += [
        f"__import__('os').environ[{_name(name)!a}] = {value!a}; " for name, value in env.items()
    ]
    return "".join(parts) + ("\n" if parts else "")


def _name(name: str) -> str:
    if not name.isidentifier() or not name.isascii():
        raise UnsupportedError(f"{name!r} is no name of an environment variable")
    return name


def statuses(data: bytes) -> list[NamedStatus]:
    """Read what `sessions.sh` lists, one line each; raises GuestError for anything else."""
    return [_status(line) for line in data.decode("utf-8", "replace").split("\n") if line]


def _status(line: str) -> NamedStatus:
    fields = line.split(" ")
    kind = next((each for each in _KINDS if each in fields[1:2]), None)
    state = next((each for each in _STATES if each in fields[2:3]), None)
    if len(fields) != 5 or kind is None or state is None or not SESSION_NAME.match(fields[0]):
        raise GuestError(f"the guest says of a session: {line[:80]!r}")
    code, begun = (int(each) if _DIGITS.match(each) else None for each in fields[3:])
    return NamedStatus(fields[0], kind, state, code, begun)
