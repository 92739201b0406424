"""What a guest's shell is given for one command: a line, and what goes over its input first.

A plain command is one line, with a mark in its environment by which its processes are found again.
One with an environment, a directory or a user of its own starts with a shell that reads the rest
from its standard input: so no value shows on the guest's command lines. That shell says on its
standard error that all went well, just before it turns into the command, or why it did not; this
is the preface, and what follows it is the command's own. Nothing here does I/O.
"""

from __future__ import annotations

import functools
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmconnect.errors import GuestError, UnsupportedError

__all__ = ["Command", "Preface", "Words", "script", "ways_to_user", "words_of"]

Words = str | Sequence[str]
"""A command: its words, or the text of a shell script."""

MARK = "VMCONNECT_RUN"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)
# What may come before the preface: what a login shell's start-up files have to say.
_NOISE_BYTES = 1 << 16
_STAGE = """LC_ALL=C IFS= read -r vmc_ && eval "$vmc_" """.strip()
# What a shell does itself it can only do as itself; all else takes its place.
# fmt: off
_BUILTINS = frozenset((
    ".", ":", "alias", "cd", "command", "eval", "exec", "exit", "export", "getopts", "hash", "read",
    "readonly", "set", "shift", "source", "times", "trap", "type", "ulimit", "umask", "unalias",
    "unset", "wait",
))
# fmt: on
_STAGE_LINE = f"exec sh -c {shlex.quote(_STAGE)}"


def words_of(command: Words) -> tuple[str, ...]:
    """Return the words of a command; a text is one of the guest's ``sh``."""
    return ("sh", "-c", command) if isinstance(command, str) else tuple(command)


@functools.cache
def script(name: str) -> str:
    """Return a script of ours for the guest, without its comments; they go over the wire."""
    lines = (Path(__file__).with_name("scripts") / name).read_text("utf-8").splitlines()
    kept = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return "\n".join(line.lstrip() if name.endswith(".sh") else line for line in kept)


@dataclass(frozen=True, slots=True)
class Command:
    """One command, ready to be sent. ``mark`` is how its processes are known in the guest.

    ``line`` is for the login shell, ``header`` for its input, before all else; where there is a
    header there is a preface. ``user`` is whom it runs as, None if that is who logs in.
    """

    argv: tuple[str, ...]
    line: str
    mark: str
    header: bytes = field(default=b"", repr=False)
    user: str | None = None

    @classmethod
    def of(
        cls,
        command: Words,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        login_user: str | None = None,
        mark: str = "",
    ) -> Command:
        """Prepare a command; raises UnsupportedError for what no shell can be told."""
        argv = words_of(command)
        mark = mark or f"run.{secrets.token_hex(8)}."
        user = None if user == login_user else user
        _check(argv, env or {}, cwd, user)
        if not env and cwd is None and user is None:
            return cls(argv, f"{MARK}={mark} {shlex.join(argv)}", mark)
        header = _last_stage(argv, env or {}, cwd, user, mark)
        if user is not None:
            header = _user_stage(user, mark) + header
        return cls(argv, _STAGE_LINE, mark, header, user)

    def preface(self) -> Preface:
        """Return what reads the command's preface."""
        return Preface(self)


def _check(
    argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None, user: str | None
) -> None:
    if not argv:
        raise UnsupportedError("there is no command")
    for name in env:
        if not _NAME.match(name):
            raise UnsupportedError(f"{name!r} is no name of an environment variable")
    if user is not None and not _USER.match(user):
        raise UnsupportedError(f"{user!r} is no name of a user")
    if any("\0" in each for each in (*argv, *env.values(), cwd or "")):
        raise UnsupportedError("a command cannot have a null character in it")


def quoted(text: str) -> str:
    r"""Return a word for a POSIX shell that stands in one line; a newline is in ``$vmc_n``."""
    return "'" + text.replace("'", "'\\''").replace("\n", "'\"$vmc_n\"'") + "'"


# Each stage is one line: that is what a shell reads without taking more than its own.


def _last_stage(
    argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None, user: str | None, mark: str
) -> bytes:
    parts = ["vmc_n=$(printf '\\nx'); vmc_n=${vmc_n%x}"]
    if user is not None:
        parts.append(f"USER={user} LOGNAME={user} HOME=~{user}; export USER LOGNAME HOME")
    if cwd is None and user is not None:
        parts.append('cd -- "$HOME" 2>/dev/null || cd /')
    elif cwd is not None:
        where = quoted(cwd)
        parts.append(
            f"CDPATH= cd -- {where} 2>/dev/null || {{ vmc_=$(CDPATH= cd -- {where} 2>&1); "
            f"printf '%s\\n' \"$vmc_\" {_tell(mark, 'no')}; exit 1; }}"
        )
    parts += [f"export {name}={quoted(value)}" for name, value in env.items()]
    parts += [
        f"export {MARK}={mark}",
        f"printf '' {_tell(mark, 'ok')}",
        ("" if argv[0] in _BUILTINS else "exec ") + " ".join(map(quoted, argv)),
    ]
    # `;` and not `&&`: the last has to be the last command, and a failing export ends the shell.
    return "; ".join(parts).encode("utf-8", "surrogateescape") + b"\n"


def _user_stage(user: str, mark: str) -> bytes:
    """Return the line that becomes another user, by what the guest has for it."""
    stage = f"sh -c {shlex.quote(_STAGE)}"
    no = _tell(mark, "no")
    parts = [
        f"id -u {user} >/dev/null 2>&1 || {{ echo 'there is no such user' {no}; exit 1; }}",
        'if [ "$(id -u)" = 0 ]',
        f"then command -v runuser >/dev/null && exec runuser -u {user} -- {stage}",
        f"exec su -s /bin/sh -c {shlex.quote(_STAGE)} {user}",
        f"elif command -v sudo >/dev/null; then exec sudo -n -u {user} -- {stage}",
        f"elif command -v doas >/dev/null; then exec doas -n -u {user} {stage}",
        f"else echo 'the guest has neither sudo nor doas' {no}; exit 1",
        "fi",
    ]
    return "; ".join(parts).replace("then; ", "then ").encode() + b"\n"


def ways_to_user(login_user: str) -> str:
    """Return by what of the guest's a command becomes another user, as far as can be known here."""
    return "runuser or su" if login_user == "root" else "sudo or doas"


def _tell(mark: str, verdict: str) -> str:
    """Return the end of a command that writes something: it goes into the preface."""
    return f">&2; echo {mark}{verdict} >&2"


class Preface:
    """Reads a command's standard error up to where its own begins."""

    def __init__(self, command: Command):
        self._command = command
        self._data = bytearray()
        self.done = not command.header
        self.rest = b""
        """What is the command's, or its login shell's; once it is done."""

    def feed(self, data: bytes) -> None:
        """Take bytes; raises GuestError when the guest refuses, or is not as it should be."""
        self._data += data
        mark = self._command.mark.encode()
        before, found, after = bytes(self._data).partition(mark)
        verdict, newline, rest = after.partition(b"\n")
        if found and newline:
            self.done = True
            if verdict != b"ok":
                raise self._refusal(before)
            self.rest = before + rest
        elif len(self._data) > _NOISE_BYTES:
            raise self._refusal(b"its shell has too much to say")

    def end(self) -> None:
        """Take the end of standard error; raises GuestError, as it should not end here."""
        if not self.done:
            raise self._refusal(bytes(self._data))

    def _refusal(self, reason: bytes) -> GuestError:
        lines = reason.decode("utf-8", "replace").strip().splitlines() or ["its shell said nothing"]
        text = lines[-1].strip()[:200]
        if (user := self._command.user) is not None and "cd:" not in text:
            return GuestError(
                f"the command cannot run as {user}: {text}",
                hint="log in as that user, as root, or let sudo allow it without a password",
            )
        return GuestError(f"the command cannot start: {text}")
