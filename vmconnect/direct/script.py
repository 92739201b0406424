"""A script of ours that runs in a guest, and of which nothing is left there.

It goes in over the standard input, before what the script itself is to read, and is never on the
command line, which others in the guest can see. A shell and a Python take it into memory:
no file is made. Any other interpreter gets one in a directory of its own (mktemp -d, mode 0700),
in /dev/shm where there is one, which is removed when the interpreter has ended, also by a signal.
Only a guest that is switched off meanwhile, or a kill -9 of the shell that waits, leaves it.

What is cut short on its way is not run. The guest needs a POSIX sh, and for a file mktemp and rm.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vmconnect.direct.python_start import reading_script
from vmconnect.direct.result import Result
from vmconnect.direct.runner import Runner
from vmconnect.errors import ResourceError, TargetError
from vmconnect.operation import Operation

__all__ = ["Script", "run_script"]

_MOST_BYTES = 16 << 20
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"})
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_POWERSHELLS = frozenset({"pwsh", "powershell"})
# By these options alone a shell can be told later, by its own ``set``.
_SET_OPTIONS = re.compile(r"-[aefnuvxC]+")
_BY_SUFFIX = {
    ".sh": ("sh",),
    ".bash": ("bash",),
    ".zsh": ("zsh",),
    ".py": ("python3",),
    ".ps1": ("pwsh",),
    ".pl": ("perl",),
    ".rb": ("ruby",),
}

# read takes a byte at a time from what cannot be sought in (POSIX, sh, read): so not one of those
# is lost that come after the script. All is one line, as some login shells want it.
_READ = (
    'while IFS= read -r line; do [ "$line" = {end} ] && exit 0; '
    "printf '%s\\n' \"$line\"; done; exit 1"
)
_BY_SHELL = 'script=$({read}) || exit 255; {options}eval "$script"'
_BY_FILE = (
    'for d in "${{TMPDIR:-}}" /dev/shm /tmp; do [ -d "$d" ] && [ -w "$d" ] && break; done; '
    'umask 077; d=$(mktemp -d "$d/vmconnect.XXXXXX") || exit 255; '
    "trap 'rm -rf \"$d\"' EXIT; trap 'exit 129' HUP; trap 'exit 130' INT; "
    "trap 'exit 141' PIPE; trap 'exit 143' TERM; "
    '({read}) >"$d/"{name} || exit 255; {interpreter} "$d/"{name} "$@"; exit'
)
_BY_POWERSHELL = (
    "$in = [Console]::OpenStandardInput(); $data = [byte[]]::new({size}); $at = 0; "
    "while ($at -lt {size}) {{ $n = $in.Read($data, $at, {size} - $at); "
    "if ($n -le 0) {{ exit 255 }}; $at += $n }}; "
    "$script = [ScriptBlock]::Create([Text.Encoding]::UTF8.GetString($data)); "
    "& $script {arguments}; exit $LASTEXITCODE"
)


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script, what it is called, and the words of what runs it."""

    text: bytes
    name: str
    interpreter: tuple[str, ...]

    @classmethod
    def read(cls, path: Path | str, interpreter: str | None = None) -> Script:
        """Read a script; its first line (``#!``), or else its suffix, tells what runs it.

        ``interpreter`` does, as the words of a command, where it is given. Raises ResourceError
        where it cannot be read or is too large, TargetError where it is no script.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ResourceError(f"cannot read {path}: {error.strerror}") from error
        return cls.of(text, path.name, interpreter)

    @classmethod
    def of(cls, text: bytes, name: str, interpreter: str | None = None) -> Script:
        """Return the script of that text; raises as `read` does."""
        if len(text) > _MOST_BYTES:
            raise ResourceError(f"{name} is larger than {_MOST_BYTES >> 20} MiB")
        if b"\0" in text:
            raise TargetError(f"{name} is no script: it is no text", hint="copy it into the guest")
        try:
            words = tuple(shlex.split(interpreter)) if interpreter else _first_line(text)
        except ValueError as error:
            raise TargetError(f"{interpreter!r} is no command: {error}") from error
        words = words or _BY_SUFFIX.get(PurePosixPath(name).suffix.lower(), ())
        if not words:
            raise TargetError(
                f"neither a first line (#!) nor its suffix says what runs {name}",
                hint="say it with --interpreter",
            )
        return cls(text, name, words)

    def prepared(
        self, arguments: Sequence[str] = (), stdin: bytes | Iterable[bytes] | None = None
    ) -> tuple[list[str], Iterator[bytes]]:
        """Return the argv that runs it with ``arguments``, and what that is given as input.

        ``stdin`` is what the script itself is to read.
        """
        argv, head = self._form()(arguments)
        return argv, _joined(head, stdin)

    def _form(self) -> Callable[[Sequence[str]], tuple[list[str], bytes]]:
        program = PurePosixPath(self.interpreter[0]).name
        if program in _SHELLS:
            return self._by_shell
        if _PYTHON.fullmatch(program):
            return self._by_python
        if program in _POWERSHELLS:
            return self._by_powershell
        return self._by_file

    def _by_shell(self, arguments: Sequence[str]) -> tuple[list[str], bytes]:
        end, head = self._framed()
        program, *given = self.interpreter
        later = [word for word in given if _SET_OPTIONS.fullmatch(word)]
        sooner = [word for word in given if word not in later]
        options = f"set {shlex.join(later)}; " if later else ""
        start = _BY_SHELL.format(read=_READ.format(end=end), options=options)
        return [program, *sooner, "-c", start, self.name, *arguments], head

    def _by_file(self, arguments: Sequence[str]) -> tuple[list[str], bytes]:
        end, head = self._framed()
        start = _BY_FILE.format(
            read=_READ.format(end=end),
            name=shlex.quote(self.name),
            interpreter=shlex.join(self.interpreter),
        )
        return ["sh", "-c", start, self.name, *arguments], head

    def _by_python(self, arguments: Sequence[str]) -> tuple[list[str], bytes]:
        start = reading_script(len(self.text))
        return [*self.interpreter, "-c", start, self.name, *arguments], self.text

    def _by_powershell(self, arguments: Sequence[str]) -> tuple[list[str], bytes]:
        words = " ".join("'" + each.replace("'", "''") + "'" for each in arguments)
        start = _BY_POWERSHELL.format(size=len(self.text), arguments=words)
        options = ["-NoLogo", "-NoProfile", "-NonInteractive"]
        return [*self.interpreter, *options, "-Command", start], self.text

    def _framed(self) -> tuple[str, bytes]:
        """Return a line that is not in the script, and the script with that at its end."""
        end = f"vmconnect-{secrets.token_hex(16)}"
        text = self.text if self.text.endswith(b"\n") else self.text + b"\n"
        return end, text + end.encode() + b"\n"


def run_script(
    guest: Runner,
    script: Script | Path | str,
    arguments: Sequence[str] = (),
    stdin: bytes | Iterable[bytes] | None = None,
    **options: Any,
) -> Result:
    """Run a script, or the one in a file, in a guest; ``options`` are those of `Guest.run`.

    ``stdin`` is what the script is to read. Raises as `Script.read` and `Guest.run` do.
    """
    if not isinstance(script, Script):
        script = Script.read(script)
    argv, given = script.prepared(arguments, stdin)
    words = (script.name, *arguments)
    told = Operation("script", {"argv": words})
    return replace(guest.run(argv, stdin=given, operation=told, **options), argv=words)


def _first_line(text: bytes) -> tuple[str, ...]:
    """Return the words of a first line that names an interpreter, without env's part in it."""
    if not text.startswith(b"#!"):
        return ()
    words = text[2 : text.find(b"\n") if b"\n" in text else None].decode("utf-8", "replace").split()
    if words and PurePosixPath(words[0]).name == "env":
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
        if words and (words[0].startswith("-") or "=" in words[0]):
            words.insert(0, "env")
    return tuple(words)


def _joined(head: bytes, stdin: bytes | Iterable[bytes] | None) -> Iterator[bytes]:
    yield head
    if isinstance(stdin, bytes):
        yield stdin
    elif stdin is not None:
        yield from stdin
