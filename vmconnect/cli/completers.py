"""What a shell completes: commands and options as they are parsed, machines as they are now.

argcomplete is imported only when a shell asks, and then asks our own parser: so what is completed
is what is understood, and a start of the command costs nothing for it.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vmconnect.errors import VmconnectError
from vmconnect.hypervisor import Machine

__all__ = ["complete", "words_before"]

# A person waits, key in hand: what has not answered by then is left out.
_PATIENCE_SECONDS = 1.0

_WORD_BREAKS = "_ARGCOMPLETE_COMP_WORDBREAKS"

_SOCKET_FORMS = ("qemu:", "ch:", "fc:", "vnc+unix:", "vsock-mux")
_LIBVIRT_FORMS = ("libvirt:///", "qemu:///")
_LIBVIRT_PATHS = ("system/", "session/")
# What a target may begin with, for who has begun to type it.
_BEGINNINGS = (
    *(f"{form}/" for form in _SOCKET_FORMS),
    *_LIBVIRT_FORMS,
    "libvirt://",
    "ssh://",
    "vnc://",
    "vnc+tls://",
    "ws://",
    "wss://",
    "vsock/",
)

Completions = dict[str, str]
"""What may be put in, and what it is."""


def words_before(commands: Iterable[str]) -> list[str]:
    """Return the words before the one that a shell asks about, from the command's name on."""
    before = _line_before()
    words = before.split()
    if before[-1:].strip():
        words.pop()
    return words[next((n for n, word in enumerate(words) if word in commands), len(words)) :]


def _line_before() -> str:
    line = os.environ.get("COMP_LINE", "")
    return line[: int(os.environ.get("COMP_POINT") or len(line))]


def complete(parser: argparse.ArgumentParser, arguments: list[str]) -> int:
    """Answer the shell, and return the exit code; ``arguments`` stand before what it asks about."""
    if "--" in arguments:
        return 0  # What follows is the guest's.
    import argcomplete

    for action in _actions(parser):
        if action.dest == "target":
            action.completer = _complete_target  # type: ignore[attr-defined]
        elif action.dest in {"targets", "machines", "without"}:
            action.completer = _complete_machines  # type: ignore[attr-defined]
        elif action.metavar in {"SRC", "DST"}:
            action.completer = _complete_end  # type: ignore[attr-defined]
        elif action.dest == "name" and action.metavar == "NAME":
            action.completer = _complete_checkpoint  # type: ignore[attr-defined]
        elif action.type is Path:
            action.completer = argcomplete.FilesCompleter()  # type: ignore[attr-defined]
    if _line_before().rpartition(" ")[2].startswith("@"):
        # bash says that @ parts words, and at the beginning of one does not do so.
        parting = os.environ.get(_WORD_BREAKS, "")
        os.environ[_WORD_BREAKS] = parting.replace("@", "")
    argcomplete.autocomplete(
        parser,
        always_complete_options=False,
        default_completer=argcomplete.completers.SuppressCompleter(),
        exit_method=sys.exit,
    )
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Give the arguments of a parser and of its commands'."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)


def _complete_target(prefix: str, **_: Any) -> Completions:
    """Return the targets that begin with ``prefix``."""
    for form in _LIBVIRT_FORMS:
        if prefix.startswith(form):
            return _libvirt(prefix, form)
    for form in _SOCKET_FORMS:
        if prefix.startswith(f"{form}/"):
            return {f"{form}{path}": kind for path, kind in _sockets(prefix.removeprefix(form))}
    found = {name: _account(machine) for name, machine in _by_name(_machines()).items()}
    if prefix:
        found |= {each: "" for each in _BEGINNINGS if each.startswith(prefix)}
        found |= _connection_files(prefix)
    return {name: what for name, what in found.items() if name.startswith(prefix)}


def _complete_machines(prefix: str, **_: Any) -> Completions:
    """Return the targets, and the groups of machines, that begin with ``prefix``."""
    from vmconnect.session.groups import MARK, group_names

    if not prefix.startswith(MARK) and prefix:
        return _complete_target(prefix)
    try:
        groups = {f"{MARK}{name}": "group" for name in group_names()}
    except VmconnectError:
        groups = {}
    found = {} if prefix else _complete_target(prefix)
    return found | {name: what for name, what in groups.items() if name.startswith(prefix)}


def _complete_end(prefix: str, **_: Any) -> Completions:
    """Return the ends of copies that begin so: files here, and machines with their colon."""
    from argcomplete.completers import FilesCompleter

    found = dict.fromkeys(FilesCompleter()(prefix), "")
    machines = _by_name(_machines()).items()
    return found | {
        f"{name}:": _account(machine) for name, machine in machines if name.startswith(prefix)
    }


def _machines() -> Iterable[Machine]:
    from vmconnect.session import take_inventory

    try:
        return take_inventory(_PATIENCE_SECONDS).machines
    except VmconnectError:
        return ()


def _by_name(machines: Iterable[Machine]) -> dict[str, Machine]:
    """Return machines by names that can be typed as targets."""
    return {
        machine.name: machine
        for machine in machines
        if machine.name.isprintable() and not machine.name.startswith("-") and machine.name
        and set(machine.name).isdisjoint("/:")
    }  # fmt: skip


def _account(machine: Machine) -> str:
    return f"{machine.state.value}, {machine.hypervisor}"


def _libvirt(prefix: str, form: str) -> Completions:
    from vmconnect.deadline import Deadline
    from vmconnect.hypervisor import Libvirt, LibvirtAddress

    path, slash, name = prefix.removeprefix(form).partition("/")
    if not slash:
        return {f"{form}{each}": "" for each in _LIBVIRT_PATHS if each.startswith(path)}
    try:
        address, _ = LibvirtAddress.read(f"libvirt:///{path}/")
        with Libvirt(address) as hypervisor:
            machines = hypervisor.machines(Deadline(_PATIENCE_SECONDS))
    except VmconnectError:
        return {}
    return {
        f"{form}{path}/{each}": _account(machine)
        for each, machine in _by_name(machines).items()
        if each.startswith(name)
    }


def _sockets(prefix: str) -> Iterator[tuple[str, str]]:
    """Give the sockets, and the directories on the way to some, whose paths begin so."""
    directory, _, name = prefix.rpartition("/")
    for entry in _entries(directory or "/"):
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
            continue
        path = f"{directory}/{entry.name}"
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            yield f"{path}/", "directory"
        elif stat.S_ISSOCK(mode):
            yield path, "socket"


def _connection_files(prefix: str) -> Completions:
    """Return the virt-viewer files, and the directories, whose paths begin so."""
    directory, slash, name = prefix.rpartition("/")
    place = directory or ("/" if slash else ".")
    found = {}
    for entry in _entries(place):
        path = f"{directory}{slash}{entry.name}"
        if entry.name.startswith(name) and entry.name.lower().endswith(".vv"):
            found[path] = "connection file"
        elif slash and entry.name.startswith(name) and entry.is_dir():
            found[f"{path}/"] = "directory"
    return found


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if entry.name.isprintable()]
    except OSError:
        return []


def _complete_checkpoint(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Completions:
    """Return the names of the checkpoints that the target's machine has."""
    from vmconnect.deadline import Deadline
    from vmconnect.session import hypervisor_of, parse_target, resolve

    deadline = Deadline(_PATIENCE_SECONDS)
    try:
        machine = resolve(parse_target(str(parsed_args.target)), deadline)
        with hypervisor_of(machine) as hypervisor:
            checkpoints = hypervisor.checkpoints(machine, deadline)
    except VmconnectError:
        return {}
    return {
        each.name: str(each.created or "")
        for each in checkpoints
        if each.name.isprintable() and each.name.startswith(prefix)
    }
