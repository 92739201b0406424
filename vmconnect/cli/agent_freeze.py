"""``vmconnect agent freeze`` and ``thaw``: a guest's file systems, held still."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from vmconnect.cli.agent_login import agent_of
from vmconnect.cli.voice import say
from vmconnect.deadline import Deadline
from vmconnect.errors import ResourceError

__all__ = ["run_freeze", "run_thaw"]

# What would end us in the midst, and leave the guest standing still.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def run_freeze(arguments: argparse.Namespace) -> int:
    """Freeze, run the command if there is one, and return its exit code."""
    deadline = Deadline(arguments.timeout)
    with (
        _ending_in_order(),
        agent_of(arguments, deadline) as agent,
    ):
        machine = agent.machine
        if not arguments.argv:
            count = agent.freeze(arguments.mount, deadline)
            _tell(arguments, machine, count, "frozen")
            if not arguments.json:
                say(f"{machine}: they stay so until: vmconnect agent thaw {arguments.target}")
            return 0
        with agent.frozen(arguments.mount, deadline) as count:
            try:
                code = subprocess.run(arguments.argv, check=False).returncode
            except OSError as error:
                raise ResourceError(f"cannot run {arguments.argv[0]}: {error.strerror}") from error
        _tell(arguments, machine, count, "frozen meanwhile", exit_code=code)
        return code if code >= 0 else 128 - code


def run_thaw(arguments: argparse.Namespace) -> int:
    """Thaw, and return the exit code."""
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        _tell(arguments, agent.machine, agent.thaw(deadline), "thawed")
    return 0


def _tell(arguments: argparse.Namespace, machine: str, count: int, what: str, **more: Any) -> None:
    if arguments.json:
        told = {"machine": machine, "file_systems": count, **more}
        print(json.dumps(told))  # noqa: T201
    else:
        say(f"{machine}: {what}: {count} file system{'' if count == 1 else 's'}")


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a signal that ends us end the ``with`` block as an exception does."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {each: signal.signal(each, end) for each in _ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
