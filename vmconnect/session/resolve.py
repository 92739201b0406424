"""From a target to the one machine it means, or to all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError, MachineNotFoundError, UnsupportedError
from vmconnect.hypervisor import Hypervisor, Machine, Qemu
from vmconnect.hypervisor.lookup import choose, is_pattern
from vmconnect.session.inventory import Inventory, ask_all, gathered, take_inventory
from vmconnect.session.places import hypervisors
from vmconnect.session.target import (
    AddressTarget,
    FileTarget,
    LibvirtTarget,
    NamedTarget,
    SocketTarget,
    Target,
    parse_target,
)
from vmconnect.streams import Endpoint, Tcp

if TYPE_CHECKING:
    from vmconnect.streams import SshHost

__all__ = ["hypervisor_of", "resolve", "resolve_all", "resolve_or_expect"]

# How long a search for a name waits for a hypervisor that does not answer: the machine is most
# likely another's, and who named it waits for it.
_SEARCH_SECONDS = 5.0


def resolve(target: Target, timeout: Deadline | float | None = 10.0) -> Machine:
    """Return the machine that ``target`` means.

    Raises MachineNotFoundError or AmbiguousTargetError, both with the candidates, and what the
    hypervisor raises when it does not answer. Where ssh leads to it, and asks whoever is at the
    terminal, the time that the answer takes does not count.
    """
    if host := _host(target):
        from vmconnect.streams.ssh.master import log_in

        log_in(host)
    deadline = Deadline.of(timeout)
    found = _find(target, deadline)
    known = found if found.machines else _known(target, deadline)
    return _choose(target, found, known)


def resolve_or_expect(target: Target, timeout: Deadline | float | None = 10.0) -> Machine:
    """Return the machine that ``target`` means, as `resolve`; or one of which a socket is left.

    That is off, and may come back where its socket is; all else of it is not known yet.
    """
    deadline = Deadline.of(timeout)
    try:
        return resolve(target, deadline)
    except (MachineNotFoundError, ConnectError) as error:
        closed_to_us = isinstance(error.__cause__, PermissionError)
        expected = None if closed_to_us else _expected(target)
        if expected is None:
            raise
        return expected


def resolve_all(target: Target, timeout: Deadline | float | None = 10.0) -> list[Machine]:
    """Return the machines that a pattern means, by name; any other target means one.

    Raises as `resolve`; a pattern that matches nothing is a MachineNotFoundError.
    """
    deadline = Deadline.of(timeout)
    if isinstance(target, NamedTarget | LibvirtTarget) and is_pattern(target.name):
        found = _find(target, deadline)
        if found.machines:
            return list(found.machines)
        _choose(target, found, _known(target, deadline))
    return [resolve(target, deadline)]


def hypervisor_of(machine: Machine) -> Hypervisor:
    """Return the hypervisor that runs the machine; the caller closes it.

    What it is told to do is noted in the journal. Raises UnsupportedError for a machine that was
    named by a bare address.
    """
    from vmconnect.session.journal import journalled_hypervisor

    target = parse_target(machine.target)
    if isinstance(target, SocketTarget | LibvirtTarget):
        return journalled_hypervisor(_hypervisor_at(target))
    raise UnsupportedError(
        "an address tells of no hypervisor that could be asked",
        machine=machine.name,
        hint="name the machine as vmconnect list does",
    )


def _find(target: Target, deadline: Deadline) -> Inventory:
    """Return the machines that match, and the errors of those that could not be asked."""
    match target:
        case AddressTarget():
            return Inventory((_of_address(target),))
        case FileTarget(path):
            return Inventory((_of_file(Path(path)),))
        case SocketTarget(_, path):
            with _hypervisor_at(target) as hypervisor:
                return Inventory((hypervisor.inspect(Path(path), deadline),))
        case LibvirtTarget(name=name):
            with _hypervisor_at(target) as hypervisor:
                return Inventory(tuple(hypervisor.look_up(name, deadline)))
        case NamedTarget(name):
            soon = deadline.sooner(_SEARCH_SECONDS)
            return gathered(ask_all(hypervisors(), lambda each: each.look_up(name, soon), soon))


def _expected(target: Target) -> Machine | None:
    """Return the machine that has left a socket behind, and does not serve it."""
    match target:
        case SocketTarget(_, path):
            places, name = [_hypervisor_at(target)], Path(path).stem
        case NamedTarget(name):
            places = hypervisors()
        case _:
            return None
    expected = [each for place in places if (each := place.expected(name)) is not None]
    return expected[0] if len(expected) == 1 else None


def _known(target: Target, deadline: Deadline) -> Inventory:
    """Return the machines that a mistyped name may have meant."""
    if isinstance(target, LibvirtTarget):
        with _hypervisor_at(target) as hypervisor:
            return Inventory(tuple(hypervisor.machines(deadline)))
    return take_inventory(deadline.sooner(_SEARCH_SECONDS))


def _choose(target: Target, found: Inventory, known: Inventory) -> Machine:
    name = target.name if isinstance(target, NamedTarget | LibvirtTarget) else str(target)
    try:
        return choose(found.machines, name or "", known.machines)
    except MachineNotFoundError as error:
        # Then it may well be one of theirs.
        for each in known.errors or found.errors:
            error.hint = f"{error.hint}; {each}" if error.hint else str(each)
        raise


def _host(target: Target) -> SshHost | None:
    """Return the host that our own ssh has to reach for the target."""
    match target:
        case SocketTarget(host=host):
            return host
        case AddressTarget(console=console, guest=guest):
            from vmconnect.streams import host_of

            return host_of(console) or host_of(guest)
        case _:
            return None


def _hypervisor_at(target: SocketTarget | LibvirtTarget) -> Hypervisor:
    if isinstance(target, LibvirtTarget):
        from vmconnect.hypervisor.libvirt import Libvirt

        return Libvirt(target.address)
    directory, host = Path(target.path).parent, target.host
    if target.kind == "qemu":
        return Qemu(directory, host)
    from vmconnect.hypervisor.rest import CloudHypervisor, Firecracker

    return CloudHypervisor(directory, host) if target.kind == "ch" else Firecracker(directory, host)


def _of_address(target: AddressTarget) -> Machine:
    from vmconnect.streams import WebSocket

    # A WebSocket's address may hold a token: neither names nor trust stores show it.
    text = str(target.console) if isinstance(target.console, WebSocket) else target.text
    return Machine(
        name=target.name or text,
        identity=_identity(target.console, text),
        target=target.text,
        console=target.console,
        guest=target.guest,
        console_user=target.user,
    )


def _of_file(path: Path) -> Machine:
    from vmconnect.session.virt_viewer import read_viewer_file

    file = read_viewer_file(path)
    address = f"vnc://{file.console}"
    return Machine(
        name=file.title or path.name,
        identity=_identity(file.console, address),
        target=address,
        console=file.console,
        console_user=file.user,
        console_password=file.password,
    )


def _identity(console: Endpoint | None, text: str) -> str:
    """Return what trust is pinned to: a server, however its address is written."""
    return f"vnc://{console}".lower() if isinstance(console, Tcp) else text
