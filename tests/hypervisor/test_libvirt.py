"""libvirt: its daemons for real, session and system; its XML by properties."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hypervisor.libvirtd import session_daemon, system_daemon
from tests.hypervisor.rig import qcow2, soon
from tests.streams.far_host import far_host
from vmconnect.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    HypervisorError,
    MachineNotFoundError,
    TargetError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import EventKind, Libvirt, LibvirtAddress, Machine, PowerState
from vmconnect.hypervisor.libvirt.domain import read_domain
from vmconnect.streams import SshHost, Tcp, ThroughSsh, Unix, Vsock, dial
from vmconnect.vnc import Console

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can run a privileged libvirtd")

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><bios useserial='yes'/></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{room}/{name}.qcow2'/><target dev='hda'/>
    </disk>
    <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='pty'/>
    <graphics type='vnc' socket='{room}/{name}.vnc' passwd='sesame'/>
    <video><model type='vga'/></video>
  </devices>
</domain>
"""


class Daemon:
    """A daemon with one domain, defined by the test as virsh would."""

    def __init__(self, address: LibvirtAddress, room: Path):
        self.address, self.room = address, room
        self.hypervisor = Libvirt(address)

    def library(self, function: Callable[[Any], Any]) -> Any:
        import libvirt

        connection = libvirt.open(self.address.uri)
        try:
            return function(connection)
        finally:
            connection.close()

    def define(self, name: str) -> Machine:
        disk = qcow2(self.room / f"{name}.qcow2")
        disk.chmod(0o666)
        self.library(lambda c: c.defineXML(DOMAIN.format(name=name, room=self.room)).name())
        (machine,) = self.hypervisor.look_up(name, soon())
        return machine

    def state(self, machine: Machine) -> PowerState:
        return self.hypervisor.refresh(machine, soon()).state

    def clear(self) -> None:
        def undefine(connection: Any) -> None:
            import libvirt

            for domain in connection.listAllDomains():
                if domain.isActive():
                    domain.destroy()
                domain.undefineFlags(
                    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                )

        self.library(undefine)


def _daemon(kind: Any) -> Iterator[Daemon]:
    with kind() as (address, room):
        room.chmod(0o777)
        daemon = Daemon(address, room)
        try:
            yield daemon
        finally:
            daemon.hypervisor.close()


@pytest.fixture(scope="module")
def session_libvirtd() -> Iterator[Daemon]:
    yield from _daemon(session_daemon)


@pytest.fixture(scope="module")
def system_libvirtd() -> Iterator[Daemon]:
    yield from _daemon(system_daemon)


@pytest.fixture(params=["session", pytest.param("system", marks=ROOT)])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    found: Daemon = request.getfixturevalue(f"{request.param}_libvirtd")
    yield found
    found.clear()


def until(condition: Callable[[], bool]) -> None:
    deadline = soon()
    while not condition():
        deadline.check("waiting for the condition")
        time.sleep(0.05)


def test_a_domain_from_definition_to_destruction(daemon: Daemon) -> None:
    hypervisor, machine = daemon.hypervisor, daemon.define("web 01")
    assert machine.state is PowerState.OFF
    assert (machine.console, machine.serial, machine.handed_console) == (None, None, False)
    assert LibvirtAddress.read(machine.target) == (daemon.address, "web 01")
    hypervisor.power_on(machine, soon())
    hypervisor.power_on(machine, soon())  # a running one is left alone
    machine = hypervisor.refresh(machine, soon())
    assert machine.state is PowerState.RUNNING
    assert machine.console == Unix(f"{daemon.room}/web 01.vnc")
    assert isinstance(machine.serial, Path)
    assert isinstance(machine.agent, Unix)
    assert machine.agent.path.endswith("org.qemu.guest_agent.0")
    assert hypervisor.look_up(machine.uuid or "", soon()) == [machine]
    assert hypervisor.look_up("web*", soon()) == [machine]
    assert hypervisor.look_up("web", soon()) == []
    assert hypervisor.machines(soon()) == [machine]
    hypervisor.pause(machine, soon())
    assert daemon.state(machine) is PowerState.PAUSED
    hypervisor.resume(machine, soon())
    hypervisor.reset(machine, soon())
    hypervisor.shut_down(machine, soon())  # no system is there to hear it
    assert daemon.state(machine) is PowerState.RUNNING
    hypervisor.save(machine, soon())
    assert daemon.state(machine) is PowerState.SAVED
    hypervisor.power_on(machine, soon())
    assert daemon.state(machine) is PowerState.RUNNING
    hypervisor.power_off(machine, soon())
    assert daemon.state(machine) is PowerState.OFF
    with pytest.raises(HypervisorError, match=r"web 01: .*not running"):
        hypervisor.reset(machine, soon())


def test_checkpoints(daemon: Daemon) -> None:
    hypervisor, machine = daemon.hypervisor, daemon.define("cp")
    hypervisor.power_on(machine, soon())
    assert hypervisor.checkpoints(machine, soon()) == []
    hypervisor.create_checkpoint(machine, "one <&>", soon())
    hypervisor.create_checkpoint(machine, "two", soon())
    first, second = hypervisor.checkpoints(machine, soon())
    assert {first.name, second.name} == {"one <&>", "two"}
    hypervisor.pause(machine, soon())
    hypervisor.apply_checkpoint(machine, "one <&>", soon())
    assert daemon.state(machine) is PowerState.RUNNING  # as it was then
    (current,) = [each.name for each in hypervisor.checkpoints(machine, soon()) if each.current]
    assert current == "one <&>"
    hypervisor.delete_checkpoint(machine, "two", soon())
    assert [each.name for each in hypervisor.checkpoints(machine, soon())] == ["one <&>"]
    with pytest.raises(TargetError, match="there are: one"):
        hypervisor.apply_checkpoint(machine, "two", soon())
    with pytest.raises(HypervisorError, match="already exists"):
        hypervisor.create_checkpoint(machine, "one <&>", soon())


def test_media(daemon: Daemon) -> None:
    hypervisor, machine = daemon.hypervisor, daemon.define("media")
    image = daemon.room / "a & b.iso"
    image.write_bytes(bytes(1 << 16))
    for running in (False, True):
        if running:
            hypervisor.power_on(machine, soon())
        hypervisor.insert_medium(machine, image, soon())
        (drive,) = hypervisor.drives(machine, soon())
        assert (drive.id, drive.medium) == ("hdc", str(image))
        hypervisor.eject_medium(machine, soon(), force=running)
        (drive,) = hypervisor.drives(machine, soon())
        assert drive.medium is None
    with pytest.raises(TargetError, match="say which: hdc"):
        hypervisor.eject_medium(machine, soon(), drive="hdd")


def test_the_screen_with_and_without_a_viewer(daemon: Daemon) -> None:
    hypervisor, machine = daemon.hypervisor, daemon.define("screen")
    hypervisor.power_on(machine, soon())
    machine = hypervisor.refresh(machine, soon())
    assert machine.handed_console
    image = Image.open(io.BytesIO(hypervisor.screenshot(machine, soon())))
    assert image.format == "PNG"
    with Console.open(
        lambda deadline: hypervisor.open_console(machine, deadline), "screen", timeout=60
    ) as console:
        console.wait_for(lambda it: it.text() is not None, 60)
    hypervisor.send_keys(machine, [0x1D, 0x38, 0xD3], soon())
    hypervisor.set_console_password(machine, "open", soon(), valid_s=3600)
    assert machine.console is not None
    endpoint, word = machine.console, "open"
    with Console.open(lambda deadline: dial(endpoint, deadline), "screen", password=word):
        pass


def test_events(daemon: Daemon) -> None:
    hypervisor = daemon.hypervisor
    before = threading.active_count()
    with hypervisor.watch(soon()) as watch:
        machine = daemon.define("seen")
        hypervisor.power_on(machine, soon())
        hypervisor.pause(machine, soon())
        hypervisor.resume(machine, soon())
        hypervisor.reset(machine, soon())
        hypervisor.power_off(machine, soon())
        daemon.clear()
        wanted = [
            EventKind.APPEARED,
            EventKind.STARTED,
            EventKind.PAUSED,
            EventKind.RESUMED,
            EventKind.RESET,
            EventKind.STOPPED,
            EventKind.GONE,
        ]
        seen = []
        while wanted[-1] not in seen:
            event = watch.next(soon())
            assert (event.name, event.identity) == ("seen", machine.identity)
            seen.append(event.kind)
        # libvirt tells a started machine's first instruction as a resume too.
        assert [kind for kind in wanted if kind in seen] == wanted
        with pytest.raises(DeadlineError):
            watch.next(0.01)
        waiting: list[object] = []
        thread = threading.Thread(target=lambda: waiting.extend(watch))
        thread.start()
        watch.close()
        thread.join()
        assert waiting == []
    until(lambda: threading.active_count() <= before + 1)  # libvirt's event loop stays


def test_a_machine_that_is_gone_is_told(daemon: Daemon) -> None:
    machine = daemon.define("brief")
    daemon.clear()
    with pytest.raises(MachineNotFoundError, match="brief"):
        daemon.hypervisor.power_on(machine, soon())


def test_a_daemon_that_hangs_meets_the_deadline_and_comes_back() -> None:
    with session_daemon() as (address, room):
        hypervisor = Libvirt(address)
        assert hypervisor.machines(soon()) == []
        pid = int((room / "run" / "libvirt" / "libvirtd.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(2):  # on the open connection, then on a new one
                with pytest.raises(DeadlineError, match=r"qemu:///session.*in time"):
                    hypervisor.machines(soon(0.2))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert hypervisor.machines(soon()) == []
        watch = hypervisor.watch(soon())
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionLostError):
            watch.next(soon())
        watch.close()
        with pytest.raises((ConnectError, ConnectionLostError)):
            hypervisor.machines(soon())
        with pytest.raises(ConnectError, match="is libvirtd or virtqemud running"):
            hypervisor.machines(soon())
        hypervisor.close()


DENIED = """
import grp, os, pwd, sys
from vmconnect.deadline import Deadline
from vmconnect.errors import ConnectError
from vmconnect.hypervisor import Libvirt, LibvirtAddress
from vmconnect.hypervisor.libvirt.connection import load
load()
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    Libvirt(LibvirtAddress("system", query=sys.argv[1])).machines(Deadline(5))
except ConnectError as error:
    print(error)
"""


@ROOT
def test_permission_denied_says_which_group_and_setting(system_libvirtd: Daemon) -> None:
    socket = system_libvirtd.room / "run" / "libvirt-sock"
    mode = socket.stat().st_mode
    socket.chmod(0o770)
    try:
        result = subprocess.run(
            [sys.executable, "-c", DENIED, system_libvirtd.address.query],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        socket.chmod(mode)
    assert result.stderr == ""  # libvirt's own voice is not heard
    assert "Permission denied" in result.stdout
    assert "open to the group root" in result.stdout
    assert "unix_sock_group" in result.stdout


@ROOT
def test_a_daemon_of_another_host_and_its_machine_s_screen(
    system_libvirtd: Daemon, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libvirt runs an ssh of its own: here one that is told where the test's configuration is."""
    with far_host(directory) as host:
        ssh = directory / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {host.config} "$@"\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        try:
            machine = system_libvirtd.define("far")
            system_libvirtd.hypervisor.power_on(machine, soon())
            there = LibvirtAddress("system", host.name, "", system_libvirtd.address.query)
            with Libvirt(there) as hypervisor:
                (found,) = hypervisor.look_up("far", soon())
                assert found.target == there.target("far")
                assert found.uuid == machine.uuid
                vnc = Unix(f"{system_libvirtd.room}/far.vnc")
                assert found.console == ThroughSsh(SshHost(host.name), vnc)
                assert isinstance(found.agent, ThroughSsh)
                assert (found.serial, found.handed_console) == (None, False)
                console = Console.open(
                    lambda deadline: dial(found.console, deadline),  # type: ignore[arg-type]
                    "far",
                    password="sesame",  # noqa: S106
                    timeout=60,
                )
                with console:
                    assert console.login == "VncAuth"
        finally:
            system_libvirtd.clear()


HERE = LibvirtAddress("system")
THERE = LibvirtAddress("system", "kvm7:16514", "tls")
BY_SSH = LibvirtAddress("system", "root@kvm7:2222")


LISTEN = "<graphics type='vnc' port='5901'><listen type='address' address='{}'/></graphics>"
SPICE = "<graphics type='spice' port='5900'/>"


def devices(xml: str) -> str:
    return f"<domain type='kvm'><devices>{xml}</devices></domain>"


@pytest.mark.parametrize(
    ("xml", "cid"),
    [
        ("<vsock model='virtio'><cid auto='no' address='7'/></vsock>", 7),
        ("<vsock model='virtio'><cid auto='yes' address='4294967294'/></vsock>", 4294967294),
        ("<vsock model='virtio'><cid auto='yes'/></vsock>", None),
        ("<vsock model='virtio'><cid address='2'/></vsock>", None),
        ("<vsock model='virtio'><cid address='4294967295'/></vsock>", None),
        ("<vsock model='virtio'><cid address='٣'/></vsock>", None),
        ("<vsock model='virtio'/>", None),
        ("", None),
    ],
)
def test_context_ids(xml: str, cid: int | None) -> None:
    """No vsock device can be had on a host without vhost-vsock: its XML is the documented one."""
    assert read_domain(devices(xml), HERE).guest == (cid and Vsock(cid, 22))
    assert read_domain(devices(xml), BY_SSH).guest == (cid and Vsock(cid, 22))
    assert read_domain(devices(xml), THERE).guest is None


@pytest.mark.parametrize(
    ("xml", "here", "there"),
    [
        ("<graphics type='vnc' port='5901' listen='127.0.0.1'/>", Tcp("127.0.0.1", 5901), None),
        (
            LISTEN.format("0.0.0.0"),  # noqa: S104 (read)
            Tcp("127.0.0.1", 5901),
            Tcp("kvm7", 5901),
        ),
        (
            LISTEN.format("10.0.0.7"),
            Tcp("10.0.0.7", 5901),
            Tcp("10.0.0.7", 5901),
        ),
        ("<graphics type='vnc' port='-1'/>", None, None),
        ("<graphics type='vnc' port='99999'/>", None, None),
        (
            f"{SPICE}<graphics type='vnc'><listen type='socket' socket='/run/v'/></graphics>",
            Unix("/run/v"),
            None,
        ),
        (SPICE, None, None),
    ],
)
def test_consoles(xml: str, here: object, there: object) -> None:
    assert read_domain(devices(xml), HERE).console == here
    # Where ssh leads to the host, it leads to whatever listens there.
    assert read_domain(devices(xml), BY_SSH).console == here
    assert read_domain(devices(xml), THERE).console == there


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "nonsense",
        "<domain>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><domain>&a;</domain>",
        "<domain>" + " " * (5 << 20) + "</domain>",
        "<a>" * 100_000,
    ],
)
def test_xml_that_is_none_of_libvirt_s_is_refused(xml: str) -> None:
    with pytest.raises(HypervisorError):
        read_domain(xml, HERE)


TAGS = st.sampled_from(
    ["graphics", "listen", "vsock", "cid", "disk", "target", "source", "channel", "serial"]
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["type", "port", "socket", "address", "device", "dev", "path", "mode", "name"]),
    st.sampled_from(["vnc", "unix", "pty", "tcp", "cdrom", "7", "-1", "", "/x", "x", "9" * 30]),
    max_size=4,
)


@given(st.lists(st.tuples(TAGS, ATTRIBUTES, TAGS, ATTRIBUTES), max_size=5))
def test_any_devices_can_be_read(
    shape: list[tuple[str, dict[str, str], str, dict[str, str]]],
) -> None:
    def opened(tag: str, attributes: dict[str, str]) -> str:
        return f"<{tag} " + " ".join(f"{k}='{v}'" for k, v in attributes.items())

    xml = "".join(
        f"{opened(outer, a)}>{opened(inner, b)}/></{outer}>" for outer, a, inner, b in shape
    )
    for address in (HERE, THERE):
        domain = read_domain(devices(xml), address)
        if isinstance(domain.guest, Vsock):
            assert 2 < domain.guest.cid < 0xFFFFFFFF


@pytest.mark.parametrize(
    ("target", "uri", "name"),
    [
        ("libvirt:///system/web01", "qemu:///system", "web01"),
        ("libvirt:///session/web%2F01", "qemu:///session", "web/01"),
        ("libvirt://kvm7/system/web01", "qemu+ssh://kvm7/system", "web01"),
        ("libvirt+tls://kvm7:16514/system/w", "qemu+tls://kvm7:16514/system", "w"),
        (
            "libvirt+unix:///system/w?socket=/run/x.sock",
            "qemu+unix:///system?socket=/run/x.sock",
            "w",
        ),
    ],
)
def test_targets_and_uris(target: str, uri: str, name: str) -> None:
    address, found = LibvirtAddress.read(target)
    assert (address.uri, found) == (uri, name)
    assert address.target(name) == target


@pytest.mark.parametrize(
    "target",
    [
        "libvirt:",
        "libvirt:///",
        "libvirt:///etc/passwd",
        "libvirt:///system/a/b",
        "libvirt+ext:///system/w",
        "libvirt://-oProxyCommand=x/system/w",
        "libvirt:///system/w?command=rm",
        "libvirt+ssh://kvm7/system/w?netcat=rm",
        "libvirt:///system/w%0a",
        "libvirt://a b/system/w",
    ],
)
def test_dangerous_and_senseless_targets_are_refused(target: str) -> None:
    with pytest.raises(TargetError):
        LibvirtAddress.read(target)


@given(st.text(max_size=40))
def test_any_target_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(TargetError):
        address, name = LibvirtAddress.read("libvirt://" + text)
        assert LibvirtAddress.read(address.target(name))[0] == address


def test_what_this_libvirt_has_not_is_told() -> None:
    """libvirt's own test driver, inside the library, has neither save images nor consoles."""
    import libvirt

    from vmconnect.hypervisor.libvirt.connection import translated

    connection = libvirt.open("test:///default")
    domain = connection.listAllDomains()[0]
    with pytest.raises(libvirt.libvirtError) as caught:
        domain.openGraphicsFD(0)
    connection.close()
    error: VmconnectError = translated(caught.value, HERE)
    assert isinstance(error, UnsupportedError)
