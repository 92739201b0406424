"""PowerShell in a Windows guest: a script in, objects back.

The script goes as ``-EncodedCommand``, which no quoting can spoil, or over the standard input where
it is too long for a command line. What it puts out comes back as JSON between two marks, so that
what else is written (``Write-Host``, a program's output) does no harm.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Any

from vmconnect.direct.agent.answer import MOST_ITEMS, shown
from vmconnect.direct.result import Result
from vmconnect.errors import AgentError, GuestError

__all__ = ["PowerShellResult", "Script", "encoded", "quoted"]

# CreateProcess takes 32,767 characters for the whole command line.
_MOST_CHARACTERS = 30_000
_REASON_CHARACTERS = 1000
_FLAGS = ("-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand")

# `exit` in the script leaves by the `finally`, so what it had put out until then is told.
_FRAME = """\
[Console]::OutputEncoding = New-Object System.Text.UTF8Encoding $false
$ProgressPreference = 'SilentlyContinue'
$__vmconnect = New-Object System.Collections.ArrayList
$__failed = $null
$global:LASTEXITCODE = 0
$Error.Clear()
try {{
  & {{
{script}
  }} | ForEach-Object {{ [void]$__vmconnect.Add($_) }}
}} catch {{
  $__failed = [string]$_
}} finally {{
  $__errors = @($Error | ForEach-Object {{ [string]$_ }})
  [array]::Reverse($__errors)
  $__told = @{{ objects = @($__vmconnect); errors = $__errors; failed = $__failed }}
  $__json = ConvertTo-Json -Compress -Depth {depth} -InputObject $__told
  [Console]::Out.Write('{mark}' + $__json + '{mark}')
}}
if ($null -ne $__failed) {{ exit 1 }}
exit $global:LASTEXITCODE
"""
_FROM_STDIN = """\
$__script = [Console]::In.ReadToEnd()
$__script = [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($__script))
& ([ScriptBlock]::Create($__script))
"""


@dataclass(frozen=True, slots=True)
class PowerShellResult:
    """What a script gave.

    ``objects`` are what it put out, as JSON has them: None, truth values, numbers, texts, lists and
    dictionaries. ``errors`` are those that it went on after, ``failure`` is the one that ended it,
    None if it came to its end. ``text`` is what else was written to the standard output.
    """

    machine: str
    exit_code: int | None
    objects: tuple[Any, ...]
    errors: tuple[str, ...]
    failure: str | None
    text: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it came to its end, without errors and with exit code 0."""
        return self.exit_code == 0 and self.failure is None and not self.errors

    def check(self) -> PowerShellResult:
        """Return it if it is `ok`; raise GuestError with what went wrong if not."""
        if self.ok:
            return self
        reasons = (*self.errors[:1], f"PowerShell ended with exit code {self.exit_code}")
        raise GuestError(self.failure or reasons[0], machine=self.machine)


class Script:
    """A script as it goes to the guest, and as its answer is read."""

    def __init__(self, text: str, depth: int):
        self._mark = f"<vmconnect-{secrets.token_hex(8)}>"
        framed = _FRAME.format(script=text, depth=depth, mark=self._mark)
        self.stdin = b""
        self._command = encoded(framed)
        if len(self._command) > _MOST_CHARACTERS:
            self.stdin = base64.b64encode(framed.encode())
            self._command = encoded(_FROM_STDIN)

    def argv(self, program: str) -> tuple[str, ...]:
        """Return the program that runs it, and its arguments."""
        return (program, *_FLAGS, self._command)

    def read(self, result: Result, machine: str) -> PowerShellResult:
        """Return what came of it; AgentError for what is not of our making."""
        before, _, rest = result.stdout.decode("utf-8", "replace").partition(self._mark)
        body, _, after = rest.partition(self._mark)
        errors: tuple[str, ...] = ()
        failure, objects = None, ()
        if body:
            told = _told(body, machine)
            objects = tuple(told["objects"])
            errors = tuple(shown(each, _REASON_CHARACTERS) for each in told["errors"])
            if told["failed"] is not None:
                failure = shown(told["failed"], _REASON_CHARACTERS) or "it failed"
        else:
            # It did not even begin, or was ended.
            said = result.stderr.decode("utf-8", "replace").strip()
            failure = shown(said, _REASON_CHARACTERS) or "PowerShell gave no answer"
        return PowerShellResult(
            machine=machine,
            exit_code=result.exit_code,
            objects=objects,
            errors=errors,
            failure=failure,
            text=before + after,
            seconds=result.seconds,
        )


def encoded(script: str) -> str:
    """Return a script as ``-EncodedCommand`` takes it: Base64 of UTF-16, little endian."""
    return base64.b64encode(script.encode("utf-16-le", "replace")).decode("ascii")


def quoted(text: str) -> str:
    """Return a text as a literal of PowerShell's."""
    # It takes typographic quotation marks for the plain one.
    for mark in "'\u2018\u2019\u201a\u201b":
        text = text.replace(mark, mark * 2)
    return f"'{text}'"


def _told(body: str, machine: str) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AgentError("PowerShell's answer is no JSON", machine=machine) from error
    lists = isinstance(told, dict) and all(
        isinstance(told.get(name), list) for name in ("objects", "errors")
    )
    if not lists or len(told["errors"]) > MOST_ITEMS or "failed" not in told:
        raise AgentError("a senseless answer of PowerShell's", machine=machine)
    return dict(told)
