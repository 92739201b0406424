"""What OpenSSH has to be told to reach guests through us: lines of ssh_config(5), known_hosts."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import TargetError
from vmconnect.hypervisor import Machine
from vmconnect.session.agent_access import has_agent, told_host_keys
from vmconnect.session.guest_port import endpoint_at
from vmconnect.session.key_store import Origin
from vmconnect.session.trust import HostKey, TrustStore
from vmconnect.streams import SSH_PORT

__all__ = ["SUFFIX", "block_for", "block_for_all", "known_keys", "known_lines"]

SUFFIX = ".vm"
"""What names end with by which ssh reaches all machines, unless another suffix is asked for."""

# What a pattern of ssh_config is made of: there is no way to write it and not mean it.
_PATTERN = frozenset("*?!,")
_SAFE = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
# Ends a line for ssh, for who reads its file, or for the terminal that it is printed on.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SUFFIX = re.compile(r"[.][a-z0-9.-]+")
# ssh reads nothing else, and asks nobody: what is not pinned with us is not trusted.
_TRUST = (
    "UserKnownHostsFile /dev/null",
    "GlobalKnownHostsFile /dev/null",
    "StrictHostKeyChecking yes",
    "CheckHostIP no",
)


def block_for(machine: Machine) -> list[str]:
    """Return the lines by which ssh reaches one machine, under its name.

    Raises UnsupportedError for one with no vsock, TargetError for one that ssh cannot call by its
    name, and that has no UUID, and for one of which something would make lines of its own.
    """
    target = machine.target
    endpoint_at(machine, SSH_PORT)
    alias = _alias(machine)
    lines = [
        f"Host {_quoted(_host(machine))}",
        *_way(["proxy", "--fdpass", "--", target], "%p"),
        f"HostKeyAlias {_quoted(alias)}",
        _keys(["ssh-config", "--known-hosts", "%H", "%I", "--", target]),
        *_TRUST,
    ]
    if machine.note.user:
        lines.append(f"User {_quoted(machine.note.user)}")
    if machine.note.identity_file:
        lines.append(f"IdentityFile {_quoted(machine.note.identity_file.replace('%', '%%'))}")
        lines.append("IdentitiesOnly yes")
    return _indented(lines, machine.name)


def block_for_all(suffix: str = SUFFIX) -> list[str]:
    """Return the lines by which ssh reaches any machine, under its name and ``suffix``.

    Raises TargetError for what is no suffix of a host's name.
    """
    if not _SUFFIX.fullmatch(suffix):
        raise TargetError(f"{suffix!r} is no suffix", hint="a dot and lower-case letters, as .vm")
    return _indented(
        [
            f"Host *{suffix}",
            *_way(["proxy", "--fdpass", "--suffix", suffix, "--"], "'%n' %p"),
            _keys(
                ["ssh-config", "--suffix", suffix, "--known-hosts", "%H", "%I", "--", "%n"],
            ),
            *_TRUST,
        ]
    )


def known_keys(machine: Machine, store: TrustStore, deadline: Deadline) -> list[HostKey]:
    """Return the host keys that a machine may show.

    They are the one that whoever started it wrote down; else those pinned to it; else those that
    its guest agent tells, which are then pinned. None where nobody knows any.
    """
    if noted := HostKey.from_line(machine.note.host_key or ""):
        return [noted]
    if pinned := store.pinned(machine.identity):
        return pinned
    told = told_host_keys(machine, deadline) if has_agent(machine) else []
    if told:
        store.pin(machine.identity, *told, machine=machine.name, origin=Origin.AGENT)
    return told


def known_lines(name: str, keys: Sequence[HostKey]) -> list[str]:
    """Return ``keys`` as lines of a known_hosts file for the host that ssh calls ``name``.

    Raises TargetError for a name that would be more than one, or a pattern.
    """
    if not name or not name.isprintable() or set(name) & (_PATTERN | set(" |#@")):
        raise TargetError(f"{name!r} is no name of one host")
    return [f"{name} {key}" for key in keys]


def _host(machine: Machine) -> str:
    """Return what ssh is to call a machine: its name, where it can."""
    name = machine.name
    if name.isprintable() and not set(name) & _PATTERN and not name.startswith("-"):
        return name
    if machine.uuid:
        return machine.uuid
    raise TargetError("ssh cannot call it by its name, and it has no UUID", machine=name)


def _alias(machine: Machine) -> str:
    """Return under what a machine's keys are looked up: whatever it is called at the moment."""
    # An address may be long, and may have characters that known_hosts has not.
    return machine.uuid or re.sub(r"[^A-Za-z0-9./:_-]", "_", machine.identity)


def _way(words: list[str], tokens: str) -> list[str]:
    # ssh gives the line to the user's shell.
    command = " ".join(shlex.quote(word).replace("%", "%%") for word in [*_program(), *words])
    return ["Port 22", f"ProxyCommand {command} {tokens}", "ProxyUseFdpass yes"]


def _keys(words: list[str]) -> str:
    tokens = {"%H", "%I", "%n"}
    quoted = [
        word if word in tokens else _quoted(word.replace("%", "%%"))
        for word in [*_program(), *words]
    ]
    return f"KnownHostsCommand {' '.join(quoted)}"


def _program() -> list[str]:
    """Return how we are called from anywhere; ssh wants a whole path."""
    script = Path(sys.argv[0] or ".")
    command = script.with_name("vmconnect")
    # Where the client is compiled, Python's part is beside it.
    if script.name in {"vmconnect", "vmconnect-python"} and os.access(command, os.X_OK):
        return [str(command.absolute())]
    # -P keeps the modules out of whatever directory ssh is started in.
    return [sys.executable, "-P", "-m", "vmconnect"]


def _quoted(word: str) -> str:
    """Return a word as ssh_config wants it."""
    if _SAFE.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _indented(lines: list[str], machine: str | None = None) -> list[str]:
    if any(map(_CONTROL.search, lines)):
        raise TargetError(
            "ssh_config has no way to write a control character",
            machine=machine,
            hint="its path, its UUID, its user or its key's path has one",
        )
    return [lines[0], *(f"    {line}" for line in lines[1:])]
