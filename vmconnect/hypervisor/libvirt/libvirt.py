"""The machines of a libvirt daemon."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from vmconnect.deadline import Deadline
from vmconnect.errors import (
    HypervisorError,
    MachineNotFoundError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor.base import Capability, Checkpoint, Drive, Hypervisor
from vmconnect.hypervisor.checkpoints import check_name, find_checkpoint
from vmconnect.hypervisor.drives import choose_drive
from vmconnect.hypervisor.libvirt.address import LibvirtAddress
from vmconnect.hypervisor.libvirt.connection import Connection, load_qemu
from vmconnect.hypervisor.libvirt.domain import Domain, element, read_domain, text
from vmconnect.hypervisor.libvirt.watch import LibvirtWatch
from vmconnect.hypervisor.lookup import is_pattern, matching
from vmconnect.hypervisor.machine import Machine, PowerState
from vmconnect.hypervisor.place import afar
from vmconnect.hypervisor.watch import MachineWatch, Watch
from vmconnect.secret import Secret, forget_frames
from vmconnect.streams import SocketStream, Stream

__all__ = ["Libvirt"]

T = TypeVar("T")

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PNG_BYTES = 256 << 20

# How often a medium is changed while the guest closes the tray under the daemon's hands.
_TRAY_TRIES, _TRAY_SECONDS = 10, 0.2
_TRAY_CLOSED = "is not open"
_READ_BYTES = 1 << 18
_KEY_HOLD_MS = 50
_AGENT_SECONDS = 3600.0


class Libvirt(Hypervisor):
    """The domains of the daemon at ``address``."""

    name = "libvirt"
    fields = frozenset({Capability.CONSOLE, Capability.GUEST, Capability.AGENT, Capability.SERIAL})
    here_only = frozenset({Capability.OPEN_CONSOLE})

    def __init__(self, address: LibvirtAddress):
        self.address = address
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    @property
    def far(self) -> bool:
        """Whether it is on another host."""
        return self.address.remote

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return self.address.uri

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def machines(self, deadline: Deadline) -> list[Machine]:
        """Return every domain, by name."""

        def every(connection: Any) -> list[Machine]:
            return [
                machine
                for domain in connection.listAllDomains()
                if (machine := self._describe_or_none(domain)) is not None
            ]

        return sorted(self._call(every, deadline), key=lambda each: (each.name, each.identity))

    def look_up(self, name: str, deadline: Deadline) -> list[Machine]:
        """Return the machines of that name, UUID or shell pattern: none, one, or several."""

        def named(connection: Any) -> list[Machine]:
            return [self._describe(connection.lookupByName(name))]

        try:
            return self._call(named, deadline)
        except MachineNotFoundError:
            maybe_uuid = len(name) in {32, 36}
            if not is_pattern(name) and not maybe_uuid:
                return []
        return matching(self.machines(deadline), name)

    def refresh(self, machine: Machine, deadline: Deadline) -> Machine:
        """Return the machine as it is now."""
        return self._ask(machine, self._describe, deadline)

    def watch(self, deadline: Deadline) -> Watch:
        """Return a watch over all domains."""
        watch = LibvirtWatch(self.address, deadline)
        try:
            watch.machines = self.machines(deadline)
        except BaseException:
            watch.close()
            raise
        return watch

    def find_again(
        self, machine: Machine, deadline: Deadline, *, elsewhere: bool = True
    ) -> Machine | None:
        """Return the domain with the same UUID; None if it is not defined any more."""
        try:
            return self.refresh(machine, deadline)
        except MachineNotFoundError:
            return None

    def follow(self, machine: Machine, deadline: Deadline) -> Watch:
        """Return a watch over one domain."""
        return MachineWatch(LibvirtWatch(self.address, deadline), machine.identity)

    def power_on(self, machine: Machine, deadline: Deadline) -> None:
        """Start the domain, from its managed save if it has one."""

        def start(domain: Any) -> None:
            if not domain.isActive():
                domain.create()

        self._ask(machine, start, deadline)

    def power_off(self, machine: Machine, deadline: Deadline) -> None:
        """Destroy, in libvirt's word: pull the plug."""
        self._ask(machine, lambda domain: domain.destroy(), deadline)

    def shut_down(self, machine: Machine, deadline: Deadline, *, wait: bool = False) -> None:
        """Ask the guest by its agent or by the power button, as libvirt sees fit."""
        if not wait:
            self._ask(machine, lambda domain: domain.shutdown(), deadline)
            return
        with self.watch(deadline) as watch:
            self._ask(machine, lambda domain: domain.shutdown(), deadline)
            while self._ask(machine, lambda domain: bool(domain.isActive()), deadline):
                try:
                    watch.next(deadline)
                except VmconnectError as error:
                    raise error.with_machine(machine.name) from error.__cause__

    def reset(self, machine: Machine, deadline: Deadline) -> None:
        """Press the reset button."""
        self._ask(machine, lambda domain: domain.reset(), deadline)

    def pause(self, machine: Machine, deadline: Deadline) -> None:
        """Stop the processors."""
        self._ask(machine, lambda domain: domain.suspend(), deadline)

    def resume(self, machine: Machine, deadline: Deadline) -> None:
        """Let a paused machine go on."""
        self._ask(machine, lambda domain: domain.resume(), deadline)

    def save(self, machine: Machine, deadline: Deadline) -> None:
        """Make a managed save: the next start goes on there."""
        self._ask(machine, lambda domain: domain.managedSave(), deadline)

    def checkpoints(self, machine: Machine, deadline: Deadline) -> list[Checkpoint]:
        """Return the domain's snapshots, the oldest first."""

        def every(domain: Any) -> list[Checkpoint]:
            return sorted(
                map(_checkpoint, domain.listAllSnapshots()),
                key=lambda each: (each.created or datetime.min.replace(tzinfo=UTC), each.name),
            )

        return self._ask(machine, every, deadline)

    def create_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Make an internal snapshot of memory and disks, which must be qcow2."""
        from xml.sax.saxutils import escape

        check_name(name)
        xml = f"<domainsnapshot><name>{escape(name)}</name></domainsnapshot>"
        self._ask(machine, lambda domain: domain.snapshotCreateXML(xml), deadline)

    def apply_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Revert to the snapshot."""
        find_checkpoint(self.checkpoints(machine, deadline), name, machine.name)
        self._ask(
            machine,
            lambda domain: domain.revertToSnapshot(domain.snapshotLookupByName(name)),
            deadline,
        )

    def delete_checkpoint(self, machine: Machine, name: str, deadline: Deadline) -> None:
        """Delete the snapshot."""
        find_checkpoint(self.checkpoints(machine, deadline), name, machine.name)
        self._ask(machine, lambda domain: domain.snapshotLookupByName(name).delete(), deadline)

    def drives(self, machine: Machine, deadline: Deadline) -> list[Drive]:
        """Return the CD-ROM and floppy drives; libvirt does not tell of locks."""

        def every(domain: Any) -> list[Drive]:
            return list(read_domain(domain.XMLDesc(), self.address).drives)

        return self._ask(machine, every, deadline)

    def insert_medium(
        self, machine: Machine, image: Path, deadline: Deadline, *, drive: str | None = None
    ) -> None:
        """Put a raw image into a drive; the path is one on the daemon's host."""
        self._change_medium(machine, image.absolute(), drive, deadline)

    def eject_medium(
        self,
        machine: Machine,
        deadline: Deadline,
        *,
        drive: str | None = None,
        force: bool = False,
    ) -> None:
        """Take the medium out of a drive."""
        self._change_medium(machine, None, drive, deadline, force=force)

    def screenshot(self, machine: Machine, deadline: Deadline) -> bytes:
        """Return the first screen as PNG."""

        def take(domain: Any) -> bytes:
            stream = domain.connect().newStream()
            try:
                domain.screenshot(stream, 0)
                image = bytearray()
                while data := stream.recv(_READ_BYTES):
                    image += data
                    if len(image) > _MAX_PNG_BYTES:
                        raise HypervisorError("a screenshot past all bounds")
            except BaseException:
                stream.abort()
                raise
            stream.finish()
            return bytes(image)

        image = self._ask(machine, take, deadline)
        if not image.startswith(_PNG):
            raise UnsupportedError(
                "this libvirt gives no PNG", machine=machine.name, hint="8.0 with QEMU 7.1 does"
            )
        return image

    def send_keys(self, machine: Machine, scancodes: Sequence[int], deadline: Deadline) -> None:
        """Press a chord and release it."""

        def send(domain: Any) -> None:
            library = self._library
            keys = [int(code) for code in scancodes]
            domain.sendKey(library.VIR_KEYCODE_SET_QNUM, _KEY_HOLD_MS, keys, len(keys))

        self._ask(machine, send, deadline)

    def open_console(self, machine: Machine, deadline: Deadline) -> Stream:
        """Return an RFB connection from a daemon of this host; it needs no listening port.

        Whoever may ask libvirt for it needs no VNC password.
        """
        if self.far:
            raise UnsupportedError(
                "a console is handed over as a descriptor, which comes from no other host",
                machine=machine.name,
                hint="give the machine a VNC display that listens on a socket or a port",
            )

        def open_graphics(domain: Any) -> int:
            place = read_domain(domain.XMLDesc(), self.address).graphics
            if place is None:
                raise UnsupportedError("it has no VNC display")
            skip = self._library.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH
            return int(domain.openGraphicsFD(place, skip))

        descriptor = self._ask(machine, open_graphics, deadline)
        return SocketStream(socket.socket(fileno=descriptor), machine.name)

    def set_console_password(
        self,
        machine: Machine,
        password: Secret | str,
        deadline: Deadline,
        *,
        valid_s: float | None = None,
    ) -> None:
        """Set the VNC password of the running domain, which must have been started with one."""
        secret = password = Secret.of(password)

        def update(domain: Any) -> None:
            xml = domain.XMLDesc(self._library.VIR_DOMAIN_XML_SECURE)
            graphics = element(xml).find("devices/graphics[@type='vnc']")
            if graphics is None:
                raise UnsupportedError("it has no VNC display")
            graphics.set("passwd", secret.reveal())
            graphics.attrib.pop("passwdValidTo", None)
            if valid_s is not None:
                until = datetime.now(UTC) + timedelta(seconds=max(1.0, valid_s))
                graphics.set("passwdValidTo", until.strftime("%Y-%m-%dT%H:%M:%S"))
            try:
                domain.updateDeviceFlags(text(graphics))
            except self._library.libvirtError as error:
                forget_frames(error)  # The library has the whole element in a variable.
                raise

        self._ask(machine, update, deadline)

    def ask_agent(self, machine: Machine, request: str, deadline: Deadline) -> str:
        """Pass a request on to the guest's agent, whose channel the daemon has to itself.

        Raises GuestError when the agent refuses it, DeadlineError when it does not answer.
        """

        def ask(domain: Any) -> str:
            seconds = max(1, int(deadline.remaining(at_most=_AGENT_SECONDS) or 0))
            return str(load_qemu().qemuAgentCommand(domain, request, seconds, 0))

        return self._ask(machine, ask, deadline)

    def _change_medium(
        self,
        machine: Machine,
        image: Path | None,
        drive: str | None,
        deadline: Deadline,
        *,
        force: bool = False,
    ) -> None:
        chosen = choose_drive(self.drives(machine, deadline), drive, machine.name)

        def change(domain: Any) -> None:
            devices = element(domain.XMLDesc()).find("devices")
            disks = [] if devices is None else devices.findall("disk")
            for disk in disks:
                target = disk.find("target")
                if target is not None and target.get("dev") == chosen.id:
                    break
            else:
                raise HypervisorError(f"its drive {chosen.id} has gone")
            for tag in ("source", "backingStore"):
                for old in disk.findall(tag):
                    disk.remove(old)
            if image is not None:
                disk.set("type", "file")
                disk.append(element("<source/>"))
                disk.findall("source")[0].set("file", str(image))
                driver = disk.find("driver")
                if driver is not None:
                    driver.set("type", "raw")  # never guessed
            flag = self._library.VIR_DOMAIN_DEVICE_MODIFY_FORCE if force else 0
            for number in range(_TRAY_TRIES):
                try:
                    domain.updateDeviceFlags(text(disk), flag)
                    return
                except self._library.libvirtError as error:
                    if number == _TRAY_TRIES - 1 or _TRAY_CLOSED not in str(error):
                        raise
                # A guest, or its firmware, has closed the tray again, and the daemon has yet to
                # hear of it; or it never will: of a drive's reset QEMU tells nothing.
                if number:
                    _open_tray(domain, disk, force=force)
                time.sleep(_TRAY_SECONDS)

        self._ask(machine, change, deadline)

    @property
    def _library(self) -> Any:
        from vmconnect.hypervisor.libvirt.connection import load

        return load()

    def _call(
        self, function: Callable[[Any], T], deadline: Deadline, machine: str | None = None
    ) -> T:
        with self._lock:
            connection = self._connection
            if connection is None or not connection.usable:
                connection = self._connection = Connection(self.address)
        return connection.call(function, deadline, machine=machine)

    def _ask(self, machine: Machine, function: Callable[[Any], T], deadline: Deadline) -> T:
        """Return ``function(the virDomain)``, with the machine named in what goes wrong."""

        def ask(connection: Any) -> T:
            return function(connection.lookupByUUIDString(machine.uuid or machine.identity))

        try:
            return self._call(ask, deadline, machine.name)
        except VmconnectError as error:
            raise error.with_machine(machine.name) from error.__cause__

    def _describe_or_none(self, domain: Any) -> Machine | None:
        try:
            return self._describe(domain)
        except self._library.libvirtError as error:
            if error.get_error_code() == self._library.VIR_ERR_NO_DOMAIN:
                return None  # It went while we looked.
            raise

    def _describe(self, domain: Any) -> Machine:
        library = self._library
        states = {
            library.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
            library.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
            library.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,  # on its way, not there
            library.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
            library.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
            library.VIR_DOMAIN_SHUTOFF: PowerState.OFF,
            library.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
        }
        name, uuid = str(domain.name()), str(domain.UUIDString())
        state = states.get(domain.state()[0], PowerState.UNKNOWN)
        if state is PowerState.OFF and domain.hasManagedSaveImage():
            state = PowerState.SAVED
        # A machine that is off has no endpoints, whatever its configuration promises.
        live = state in {PowerState.RUNNING, PowerState.PAUSED}
        endpoints = read_domain(domain.XMLDesc(), self.address) if live else Domain()
        machine = Machine(
            name=name,
            identity=uuid,
            target=self.address.target(name),
            hypervisor=self.name,
            uuid=uuid,
            state=state,
            console=endpoints.console,
            guest=endpoints.guest,
            agent=endpoints.agent,
            serial=endpoints.serial,
            handed_console=endpoints.graphics is not None and not self.address.remote,
            relayed_agent=endpoints.agent_channel,
            clipboard=endpoints.clipboard,
        )
        host = self.address.ssh_host
        return machine if host is None else afar(machine, host)


def _open_tray(domain: Any, disk: Any, *, force: bool) -> None:
    """Open a drive's tray past the daemon, which takes it for open."""
    alias = disk.find("alias")
    if alias is not None:
        arguments = {"id": alias.get("name"), "force": force}
        order = {"execute": "blockdev-open-tray", "arguments": arguments}
        load_qemu().qemuMonitorCommand(domain, json.dumps(order), 0)


def _checkpoint(snapshot: Any) -> Checkpoint:
    seconds = element(snapshot.getXMLDesc()).findtext("creationTime") or ""
    created = datetime.fromtimestamp(int(seconds), UTC) if seconds.isdigit() else None
    return Checkpoint(str(snapshot.getName()), created, current=bool(snapshot.isCurrent()))
