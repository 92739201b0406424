"""What makes a machine reachable, what of it one has, and what to write for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vmconnect.deadline import Deadline
from vmconnect.errors import UnsupportedError, VmconnectError
from vmconnect.hypervisor import Machine, PowerState
from vmconnect.paths import runtime_directory
from vmconnect.session.agent_access import has_agent, open_agent
from vmconnect.session.recipes import (
    RECIPES,
    Part,
    Place,
    Recipe,
    guest_recipes,
    recipes_for,
)
from vmconnect.session.session import Session
from vmconnect.streams import Stream, Vsock

__all__ = ["Finding", "Hints", "general_hints", "hints_for"]

_ANSWER_SECONDS = 5.0
_BANNER_BYTES = 255  # RFC 4253, section 4.2
_FIRST_CID, _LAST_CID = 3, 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a machine has a part; None if that cannot be told. ``detail``: where, or why not."""

    part: Part
    present: bool | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Hints:
    """What was found of a machine, and the recipes for what it lacks."""

    machine: Machine
    findings: tuple[Finding, ...]
    recipes: tuple[Recipe, ...]


def general_hints(known: Iterable[Machine] = ()) -> dict[str, list[Recipe]]:
    """Return all recipes, by hypervisor and for guests, for a machine called NAME."""
    place = Place("NAME", str(runtime_directory() / "NAME"), _free_cid(known))
    by_hypervisor = {name: recipes_for(name, place) for name in RECIPES}
    return {**by_hypervisor, "guest": guest_recipes()}


def hints_for(
    machine: Machine, known: Iterable[Machine] = (), timeout: Deadline | float | None = 15.0
) -> Hints:
    """Look what a machine has, its guest included, and return the recipes for what it lacks.

    ``known`` are the machines here, whose context ids are taken. Raises UnsupportedError for a
    machine that no hypervisor tells of: there is nobody whose lines could be changed.
    """
    if machine.hypervisor not in RECIPES:
        raise UnsupportedError(
            "an address tells of no hypervisor that could be given hints for",
            machine=machine.name,
            hint="vmconnect hints, without a target, has them all",
        )
    deadline = Deadline.of(timeout)
    place = _place(machine, known)
    recipes = recipes_for(machine.hypervisor, place)
    possible = {recipe.part for recipe in recipes}
    findings = [
        Finding(Part.MONITOR, True, machine.target),
        _console(machine, possible),
        Finding(Part.VSOCK, machine.guest is not None, str(machine.guest or "")),
        _ssh(machine, deadline),
        _agent(machine, possible, deadline),
        _clipboard(machine, possible),
    ]
    lacking = {each.part for each in findings if each.present is False}
    # With a channel it is the guest that has no agent, or does not run it.
    in_hypervisor = lacking - ({Part.AGENT} if has_agent(machine) else set())
    in_guest = lacking | ({Part.SSH} if machine.guest is None else set())
    wanted = [each for each in recipes if each.part in in_hypervisor]
    wanted += [each for each in guest_recipes() if each.part in in_guest]
    return Hints(machine, tuple(findings), tuple(wanted))


def _console(machine: Machine, possible: set[Part]) -> Finding:
    if Part.CONSOLE not in possible:
        return Finding(Part.CONSOLE, None, f"{machine.hypervisor} has no screen to show")
    if machine.console is not None:
        return Finding(Part.CONSOLE, True, str(machine.console))
    if machine.handed_console:
        return Finding(Part.CONSOLE, True, "handed over by the hypervisor")
    return _off(machine) or Finding(Part.CONSOLE, False)


def _ssh(machine: Machine, deadline: Deadline) -> Finding:
    if machine.guest is None:
        return Finding(Part.SSH, None, "without vsock nobody can tell")
    if off := _off(machine, Part.SSH):
        return off
    soon = deadline.sooner(_ANSWER_SECONDS)
    try:
        stream = Session(machine).guest_stream(soon)
        try:
            return Finding(Part.SSH, True, _banner(stream, soon))
        finally:
            stream.close()
    except VmconnectError as error:
        return Finding(Part.SSH, False, error.message)


def _banner(stream: Stream, deadline: Deadline) -> str:
    """Return what an SSH server says of itself; it speaks first."""
    line = bytearray()
    while b"\n" not in line and len(line) < _BANNER_BYTES:
        deadline.check("waiting for the SSH server's greeting")
        stream.settimeout(deadline.remaining())
        data = stream.recv(_BANNER_BYTES - len(line))
        if not data:
            break
        line += data
    text = bytes(line).partition(b"\n")[0].decode("ascii", "replace").strip()
    if not text.startswith("SSH-"):
        raise UnsupportedError("what listens there is no SSH server")
    return "".join(char if char.isprintable() else "?" for char in text)


def _agent(machine: Machine, possible: set[Part], deadline: Deadline) -> Finding:
    if not has_agent(machine):
        if Part.AGENT not in possible:
            return Finding(Part.AGENT, None, f"{machine.hypervisor} has no channel for it")
        return _off(machine, Part.AGENT) or Finding(Part.AGENT, False, "no channel to it")
    try:
        with open_agent(machine, deadline.sooner(_ANSWER_SECONDS)) as agent:
            info = agent.info(deadline)
    except VmconnectError as error:
        return Finding(Part.AGENT, False, f"there is a channel, but {error.message}")
    lets_in = "guest-ssh-add-authorized-keys" in info.commands
    more = "" if lets_in else "; it lets nobody in by SSH keys"
    return Finding(Part.AGENT, True, f"qemu-ga {info.version} answers{more}")


def _clipboard(machine: Machine, possible: set[Part]) -> Finding:
    if machine.clipboard or Part.CLIPBOARD in possible:
        off = None if machine.clipboard else _off(machine, Part.CLIPBOARD)
        return off or Finding(Part.CLIPBOARD, machine.clipboard)
    return Finding(Part.CLIPBOARD, None, f"{machine.hypervisor} has none")


def _off(machine: Machine, part: Part = Part.CONSOLE) -> Finding | None:
    """Return what is said of a machine that does not run: what it has shows only then."""
    if machine.state in {PowerState.OFF, PowerState.SAVED} and machine.hypervisor == "libvirt":
        return Finding(part, None, f"the machine is {machine.state.value}")
    return None


def _place(machine: Machine, known: Iterable[Machine]) -> Place:
    cid = _free_cid(known)
    _, _, path = machine.target.partition(":")
    # The sockets of all but libvirt's machines lie where the one is by which they were found.
    if machine.hypervisor != "libvirt" and path.startswith("/"):
        return Place(machine.name, str(Path(path).with_suffix("")), cid)
    name = "".join(char if char.isalnum() or char in "._-" else "_" for char in machine.name)
    return Place(machine.name, str(runtime_directory() / name), cid)


def _free_cid(known: Iterable[Machine]) -> int:
    taken = {each.guest.cid for each in known if isinstance(each.guest, Vsock)}
    return next(cid for cid in range(_FIRST_CID, _LAST_CID) if cid not in taken)
