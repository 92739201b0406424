"""``vmconnect agent exec`` and ``powershell``: programs in a guest, run by its agent."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from vmconnect.cli.agent_login import agent_of
from vmconnect.cli.command_result import FAILED, as_json, exit_code
from vmconnect.cli.environment import environment
from vmconnect.cli.standard import OwnStandard
from vmconnect.cli.voice import printable, say
from vmconnect.deadline import Deadline
from vmconnect.direct.agent import PowerShellResult
from vmconnect.errors import ResourceError, VmconnectError

__all__ = ["run_exec", "run_powershell"]

_REACHING_SECONDS = 30.0
_MOST_SCRIPT_BYTES = 1 << 20


def run_exec(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code, 255 for our own failure."""
    try:
        return _exec(arguments)
    except VmconnectError as error:
        say(str(error))
        return FAILED


def _exec(arguments: argparse.Namespace) -> int:
    variables = environment(arguments.env, ()) or None
    standard, deadline = OwnStandard(), Deadline(_REACHING_SECONDS)
    with agent_of(arguments, deadline) as agent:
        result = agent.run(
            arguments.argv,
            stdin=None if arguments.no_stdin or _is_terminal() else standard.input(),
            stdout=None if arguments.json else standard.output,
            stderr=None if arguments.json else standard.error_output,
            env=variables,
            cwd=arguments.cwd,
            timeout=arguments.timeout,
        )
        machine = agent.machine
    if arguments.json:
        standard.output(json.dumps(as_json(machine, result)).encode() + b"\n")
    elif result.signal:
        say(f"the command was ended by SIG{result.signal}")
    return exit_code(result)


def run_powershell(arguments: argparse.Namespace) -> int:
    """Run the script, print what it puts out, and return its exit code."""
    script, deadline = arguments.script, Deadline(arguments.timeout)
    if script is None:
        data = sys.stdin.buffer.read(_MOST_SCRIPT_BYTES + 1)
        if len(data) > _MOST_SCRIPT_BYTES:
            raise ResourceError(f"a script of more than {_MOST_SCRIPT_BYTES >> 20} MiB")
        script = data.decode("utf-8", "replace")
    with agent_of(arguments, deadline) as agent:
        result = agent.powershell(script, depth=arguments.depth, timeout=deadline)
    if arguments.json:
        print(json.dumps(_objects_as_json(result), indent=2))  # noqa: T201
    else:
        if text := result.text.rstrip("\r\n"):
            _print(text)
        for each in result.objects:
            _print(each if isinstance(each, str) else json.dumps(each))
        for error in (*result.errors, *((result.failure,) if result.failure else ())):
            say(error)
    if result.exit_code:
        return result.exit_code
    return 0 if result.ok else 1


def _print(text: str) -> None:
    for line in text.splitlines() or [""]:
        print(printable(line))  # noqa: T201


def _is_terminal() -> bool:
    """Return whether the input is typed; then the command would wait for its end."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def _objects_as_json(result: PowerShellResult) -> dict[str, Any]:
    return {
        "machine": result.machine,
        "exit_code": result.exit_code,
        "objects": list(result.objects),
        "errors": list(result.errors),
        "failure": result.failure,
        "text": result.text,
        "seconds": round(result.seconds, 6),
    }
