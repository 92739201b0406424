"""``vmconnect agent``'s changes in a guest: clock, password, SSH keys, power."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vmconnect.cli.agent_login import agent_of
from vmconnect.cli.password_options import given_password
from vmconnect.cli.voice import printable
from vmconnect.deadline import Deadline
from vmconnect.errors import ResourceError
from vmconnect.session import ask_secret

__all__ = ["run_keys", "run_set_password", "run_shutdown", "run_suspend", "run_time"]

_MOST_KEY_BYTES = 1 << 20


def run_time(arguments: argparse.Namespace) -> int:
    """Set the guest's clock if it is to be, print it, and return the exit code."""
    deadline = Deadline(arguments.timeout)
    wanted = _wanted_time(arguments.set)
    with agent_of(arguments, deadline) as agent:
        if arguments.set == "now":
            agent.set_time(time.time(), deadline)
        elif arguments.set is not None:
            agent.set_time(wanted, deadline)
        here, there = time.time(), agent.time(deadline)
        machine = agent.machine
    if arguments.json:
        told = {"machine": machine, "time": there, "ahead_s": round(there - here, 3)}
        print(json.dumps(told))  # noqa: T201
        return 0
    try:
        shown = datetime.fromtimestamp(there, UTC).isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):
        shown = f"{there:.3f}"
    direction = "ahead of" if there >= here else "behind"
    print(f"{shown}, {abs(there - here):.3f} s {direction} this host")  # noqa: T201
    return 0


def run_set_password(arguments: argparse.Namespace) -> int:
    """Set the password and return the exit code."""
    whose = f"new password of {arguments.user} on {arguments.target}: "
    password = given_password(arguments) or ask_secret(whose)
    if password is None:
        raise ResourceError("there is no password to set", hint="use --password-file")
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        agent.set_password(arguments.user, password, crypted=arguments.crypted, timeout=deadline)
        _tell(arguments, machine=agent.machine, user=arguments.user)
    return 0


def run_keys(arguments: argparse.Namespace) -> int:
    """Change the user's keys if they are to be, else print them; return the exit code."""
    deadline = Deadline(arguments.timeout)
    user, add, remove = arguments.user, arguments.add, arguments.remove
    added = _key_lines(add) if add else []
    removed = _key_lines(remove) if remove else []
    with agent_of(arguments, deadline) as agent:
        if removed:
            agent.remove_authorized_keys(user, removed, deadline)
        if added:
            agent.add_authorized_keys(user, added, deadline)
        changed = bool(added or removed)
        keys = () if changed and not arguments.json else agent.authorized_keys(user, deadline)
        _tell(arguments, machine=agent.machine, user=user, keys=list(keys))
    if not arguments.json:
        for key in keys:
            print(printable(key))  # noqa: T201
    return 0


def run_shutdown(arguments: argparse.Namespace) -> int:
    """Tell the guest to shut down and return the exit code."""
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        agent.shut_down(arguments.mode)
        _tell(arguments, machine=agent.machine, mode=arguments.mode)
    return 0


def run_suspend(arguments: argparse.Namespace) -> int:
    """Tell the guest to suspend and return the exit code."""
    deadline = Deadline(arguments.timeout)
    with agent_of(arguments, deadline) as agent:
        agent.suspend(arguments.mode)
        _tell(arguments, machine=agent.machine, mode=arguments.mode)
    return 0


def _tell(arguments: argparse.Namespace, **fields: Any) -> None:
    if arguments.json:
        print(json.dumps(fields))  # noqa: T201


def _wanted_time(text: str | None) -> float | None:
    """Return the time that is to be set; None for the hardware's, or this host's."""
    if text in {None, "now", "rtc"}:
        return None
    try:
        return datetime.fromisoformat(str(text)).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ResourceError(f"{text!r} is no time: now, rtc or ISO 8601") from error


def _key_lines(path: Path) -> list[str]:
    """Return the lines of a file of public keys that are no comments."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_KEY_BYTES + 1)
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_KEY_BYTES or b"PRIVATE KEY" in data:
        raise ResourceError(f"{path} is no file of public keys")
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ResourceError(f"{path} has no public keys")
    return keys
