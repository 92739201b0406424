"""A session with a libvirt machine: off, on, moved, and its daemon killed."""

from __future__ import annotations

import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmconnect
from tests.hypervisor.libvirtd import Daemon, restartable_daemon
from tests.session.heard import Heard
from vmconnect.channel import ChannelState
from vmconnect.deadline import Deadline
from vmconnect.errors import MachineOffError
from vmconnect.hypervisor import Libvirt, LibvirtAddress
from vmconnect.session import Session, SessionState
from vmconnect.session.events import ChannelBack, ChannelLost, MachineMoved, MachineStateChanged
from vmconnect.vnc import Console

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = 60.0

DOMAIN = """
<domain type='qemu'>
  <name>web01</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <graphics type='vnc' socket='{socket}'/>
    <video><model type='vga'/></video>
  </devices>
</domain>
"""


class Virtual:
    """A domain, and its daemon."""

    def __init__(self, address: LibvirtAddress, room: Path, daemon: Daemon):
        self.address, self.room, self.daemon = address, room, daemon
        self.uuid = str(uuid.uuid4())

    @property
    def target(self) -> str:
        return self.address.target("web01")

    def library(self, function: Callable[[Any], Any]) -> Any:
        import libvirt

        connection = libvirt.open(self.address.uri)
        try:
            return function(connection)
        finally:
            connection.close()

    def define(self, stem: str) -> None:
        """Define the domain, or change where its screen is from its next start on."""
        xml = DOMAIN.format(uuid=self.uuid, socket=self.room / f"{stem}.vnc")
        self.library(lambda c: c.defineXML(xml).name())

    def power(self, on: bool) -> None:
        with Libvirt(self.address) as hypervisor:
            (machine,) = hypervisor.look_up("web01", Deadline(WAIT))
            (hypervisor.power_on if on else hypervisor.power_off)(machine, Deadline(WAIT))


@pytest.fixture
def virtual() -> Iterator[Virtual]:
    if shutil.which("libvirtd") is None:
        pytest.skip("needs libvirtd (apt install libvirt-daemon libvirt-daemon-driver-qemu)")
    pytest.importorskip("libvirt")
    with restartable_daemon() as (address, room, daemon):
        room.chmod(0o777)
        yield Virtual(address, room, daemon)


def firmware(console: Console) -> bool:
    return "SeaBIOS (version" in "".join((console.text(WAIT) or [])[:1])


def test_a_machine_of_libvirt_s(virtual: Virtual) -> None:
    virtual.define("first")
    with vmconnect.connect(virtual.target) as session:
        heard = Heard(session)
        assert session.state.value == "off"
        with pytest.raises(MachineOffError, match=r"web01: it is off .*vmconnect power web01 on"):
            session.console()
        console = session.console(at_once=True)
        console.wait_for(lambda each: isinstance(each.reason, MachineOffError), WAIT)
        virtual.power(on=True)
        session.wait_running(WAIT)
        console.wait_for(firmware, WAIT)
        before = session.machine

        # The daemon is killed and comes back; its machine has not noticed.
        lost = len(heard.of(ChannelLost))
        virtual.daemon.kill()
        heard.wait(MachineStateChanged, lambda event: event.after is SessionState.UNKNOWN)
        console.keyboard.press("a")
        console.confirm(WAIT)
        virtual.daemon.start()
        heard.wait(MachineStateChanged, lambda event: event.before is SessionState.UNKNOWN)
        session.wait_running(WAIT)
        assert len(heard.of(ChannelLost)) == lost

        # Turned off, and on again with its screen elsewhere.
        virtual.define("second")
        virtual.power(on=False)
        heard.wait(ChannelLost)
        session.wait_state(SessionState.OFF, timeout=WAIT)
        assert console.state is not ChannelState.READY
        virtual.power(on=True)
        heard.wait(ChannelBack)
        console.wait_for(firmware, WAIT)
        heard.wait(MachineMoved, lambda event: event.after.console is not None)
        assert session.machine.console != before.console
        assert session.machine.uuid == before.uuid == virtual.uuid


def test_closing_while_the_daemon_hangs(virtual: Virtual) -> None:
    virtual.define("first")
    session = vmconnect.connect(virtual.target)
    console = session.console(at_once=True)
    Heard(session)
    console.wait_for(lambda each: isinstance(each.reason, MachineOffError), WAIT)
    assert virtual.daemon._process is not None
    virtual.daemon._process.send_signal(signal.SIGSTOP)
    try:
        console.hurry()
        closing(session)
        assert not console.alive
    finally:
        virtual.daemon._process.send_signal(signal.SIGCONT)


def closing(session: Session) -> None:
    closer = threading.Thread(target=session.close)
    closer.start()
    closer.join(WAIT)
    assert not closer.is_alive()
