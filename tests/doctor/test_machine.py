"""Machines that are broken on purpose, up to their pictures: real QEMUs, sockets, daemons.

Servers of the tests' own stand in where no real one can be made to behave so; each says why.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.doctor.ward import chart, complaint, outcomes
from tests.hypervisor.libvirtd import session_daemon
from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import qcow2, qemu, soon
from vmconnect.hypervisor import QmpClient
from vmconnect.session import connect, hypervisor_of
from vmconnect.streams import Unix

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def only_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Machines are looked for in the test's directory alone."""
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    return directory


def vnc(directory: Path, options: str = "") -> tuple[str, ...]:
    return ("-vga", "std", "-vnc", f"unix:{directory}/m.vnc{options}")


def until(condition: Callable[[], bool]) -> None:
    """Wait, for instance until the firmware has turned the display on."""
    deadline = soon()
    while not condition():
        deadline.check("waiting for the condition")


# The hypervisor.


def test_a_machine_that_is_well_up_to_its_picture(directory: Path) -> None:
    with qemu(directory, "m", *vnc(directory), stopped=False):
        until(lambda: outcomes(chart("m"))["picture"] == "ok")
        found = chart("m")
    told = outcomes(found)
    assert [told[name] for name in list(told)[:6]] == ["ok"] * 6
    link, account, remedy = complaint(found)
    assert link == "vsock device"
    assert "no vsock device" in account
    assert "vhost-vsock-pci" in remedy


def test_a_name_that_nobody_bears(directory: Path) -> None:
    with qemu(directory, "web01"):
        link, account, remedy = complaint(chart("wed01"))
    assert (link, account) == ("hypervisor", "no machine is called 'wed01'")
    assert "known: web01" in remedy
    assert f"-qmp unix:{directory}/wed01.qmp,server=on,wait=off" in remedy


def test_a_name_that_two_bear(directory: Path) -> None:
    with qemu(directory, "m"), serving(FirecrackerModel({}), directory / "m.fc"):
        link, account, remedy = complaint(chart("m"))
    assert link == "hypervisor"
    assert "2 machines" in account
    assert f"qemu:{directory}/m.qmp" in remedy
    assert f"fc:{directory}/m.fc" in remedy


def test_what_is_no_target() -> None:
    link, account, remedy = complaint(chart("no/such"))
    assert (link, account) == ("target", "'no/such' is no target")
    assert "vsock-mux/PATH" in remedy


def test_a_monitor_that_is_missing(directory: Path) -> None:
    link, account, remedy = complaint(chart(f"qemu:{directory}/none.qmp"))
    assert link == "hypervisor"
    assert "No such file" in account
    assert "is this its socket" in remedy


@pytest.mark.parametrize("target", ["m", "qemu:{}/m.qmp"])
def test_a_socket_that_its_machine_left_behind(directory: Path, target: str) -> None:
    with qemu(directory, "m") as process:
        process.kill()
        process.wait()
        link, account, remedy = complaint(chart(target.format(directory)))
    assert link == "hypervisor"
    assert "Connection refused" in account
    assert "is the machine running" in remedy


DENIED = """
import os, sys
# What Python is installed in may not be theirs to read.
import difflib, fnmatch, grp, locale, pwd, select
import vmconnect.cli.doctor, vmconnect.doctor, vmconnect.hypervisor.rest
import vmconnect.session.journal, vmconnect.session.session
os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.environ["XDG_STATE_HOME"] = os.environ["HOME"] = "/nonexistent"
from vmconnect.cli import main
sys.exit(main(["doctor", "--json", sys.argv[1]]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("target", ["m", "qemu:{}/m.qmp"])
@pytest.mark.parametrize(
    ("mode", "group", "words"),
    [
        (0o770, "adm", "the group adm"),
        (0o770, "root", "the group root"),
        (0o700, "root", "the user root only"),
    ],
)
def test_permission_denied(directory: Path, target: str, mode: int, group: str, words: str) -> None:
    with qemu(directory, "m"):
        directory.chmod(0o755)
        shutil.chown(directory / "m.qmp", group=group)
        (directory / "m.qmp").chmod(mode)
        result = subprocess.run(
            [sys.executable, "-c", DENIED, target.format(directory)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert result.returncode == 1, result.stderr
    told = {each["check"]: each for each in json.loads(result.stdout)["checks"]}
    assert told["hypervisor"]["outcome"] == "broken"
    assert "Permission denied" in told["hypervisor"]["account"]
    assert words in told["hypervisor"]["remedy"]
    assert told["display"]["outcome"] == "not tried"


HOLDER = """
import socket, sys
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(sys.argv[1])
monitor.recv(100)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("target", ["m", "qemu:{}/m.qmp"])
def test_a_monitor_that_somebody_else_holds(directory: Path, target: str) -> None:
    with qemu(directory, "m"):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, directory / "m.qmp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            link, account, remedy = complaint(chart(target.format(directory), seconds=2.5))
            assert holder.stdin is not None
            holder.stdin.close()
        assert link == "hypervisor"
        assert "is busy" in account
        assert f"(process {holder.pid}) has it" in account
        assert "second monitor" in remedy
        assert outcomes(chart(target.format(directory)))["hypervisor"] == "ok"


@pytest.mark.parametrize("target", ["m", "qemu:{}/m.qmp"])
def test_a_qemu_that_is_stopped(directory: Path, target: str) -> None:
    with qemu(directory, "m", *vnc(directory)) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            link, account, remedy = complaint(chart(target.format(directory), seconds=2.5))
        finally:
            process.send_signal(signal.SIGCONT)
        assert link == "hypervisor"
        assert f"(process {process.pid}) is stopped" in account
        assert remedy == f"kill -CONT {process.pid}"
        assert outcomes(chart(target.format(directory)))["picture"] != "not tried"


def test_a_socket_of_another_server(directory: Path) -> None:
    with qemu(directory, "m", *vnc(directory)):
        link, account, _ = complaint(chart(f"qemu:{directory}/m.vnc"))
    assert link == "hypervisor"
    assert "not a QMP message" in account or "no QMP greeting" in account


@pytest.mark.parametrize("kind", ["ch", "fc"])
@pytest.mark.parametrize("named", [True, False])
def test_an_api_that_hangs(directory: Path, kind: str, named: bool) -> None:
    model = CloudHypervisorModel({}) if kind == "ch" else FirecrackerModel({})
    model.slow = threading.Event()
    with serving(model, directory / f"m.{kind}"):
        try:
            target = "m" if named else f"{kind}:{directory}/m.{kind}"
            link, account, _ = complaint(chart(target, seconds=2.5))
        finally:
            model.slow.set()
    assert link == "hypervisor"
    assert "does not answer" in account
    assert f"(process {os.getpid()}) hangs" in account


def test_a_machine_of_firecracker_has_no_display(directory: Path) -> None:
    model = FirecrackerModel({"vsock": {"guest_cid": 3, "uds_path": str(directory / "v.sock")}})
    model.state = "Running"
    with serving(model, directory / "m.fc"):
        found = chart("m")
    assert found["display"].account == "firecracker has no displays"
    assert outcomes(found)["VNC server"] == "not tried"
    link, account, _ = complaint(found)
    assert link == "vsock device"
    assert "No such file" in account


# libvirt.


def test_libvirt_is_off(directory: Path) -> None:
    target = f"libvirt:///system/web01?socket={directory}/none"
    link, account, remedy = complaint(chart(target))
    assert link == "hypervisor"
    assert "cannot connect to qemu:///system" in account
    assert "is libvirtd or virtqemud running?" in remedy


def test_libvirt_hangs(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(directory / "silent"))
        silent.listen()
        target = f"libvirt:///system/web01?socket={directory}/silent"
        link, account, remedy = complaint(chart(target, seconds=0.5))
    assert link == "hypervisor"
    assert "no answer from qemu:///system" in account
    assert "systemctl restart libvirtd" in remedy


def test_a_domain_from_off_to_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    import libvirt

    from tests.hypervisor.test_libvirt import DOMAIN

    with session_daemon() as (address, room):
        room.chmod(0o777)
        monkeypatch.setenv("VMCONNECT_HYPERVISORS", address.target("").rstrip("/"))
        qcow2(room / "web01.qcow2").chmod(0o666)
        connection = libvirt.open(address.uri)
        try:
            connection.defineXML(DOMAIN.format(name="web01", room=room))
        finally:
            connection.close()
        link, account, remedy = complaint(chart("web02"))
        assert (link, account) == ("hypervisor", "no machine is called 'web02'")
        assert "known: web01" in remedy
        link, account, remedy = complaint(chart("web01"))
        assert (link, account, remedy) == ("power", "it is off", "vmconnect power web01 on")
        with connect("web01") as session, hypervisor_of(session.machine) as hypervisor:
            hypervisor.power_on(session.machine, soon())
            try:
                told = outcomes(chart("web01"))
                assert told["power"] == told["VNC server"] == "ok"
            finally:
                hypervisor.power_off(session.machine, soon())


# The display.


def test_a_machine_without_a_display(directory: Path) -> None:
    with qemu(directory, "m"):
        link, account, remedy = complaint(chart("m"), "vsock device")
    assert (link, account) == ("display", "it has no VNC display")
    assert "-vnc" in remedy


def test_a_console_that_is_handed_over(directory: Path) -> None:
    with qemu(directory, "m", "-vga", "std", "-vnc", "none", stopped=False):
        until(lambda: outcomes(chart("m"))["picture"] == "ok")
        told = outcomes(chart("m"))
    assert told["display"] == told["VNC server"] == "ok"


@pytest.mark.parametrize(
    ("options", "words", "mends"),
    [
        (("-vga", "std"), "has not turned its display on", "wait until it has started"),
        (("-vga", "virtio"), "has not turned its display on", "wait until it has started"),
        (("-vga", "none"), "no graphics adapter", "-vga std"),
    ],
)
def test_a_display_that_is_off(
    directory: Path, options: tuple[str, ...], words: str, mends: str
) -> None:
    with qemu(directory, "m", *options, "-vnc", f"unix:{directory}/m.vnc"):
        found = chart("m")
    assert found["picture"].outcome.value == "warning"
    assert words in found["picture"].account
    assert mends in str(found["picture"].remedy)
    assert found["power"].outcome.value == "warning"
    assert found["power"].remedy == "vmconnect power m resume"


def test_a_password_that_is_wanted_wrong_and_right(directory: Path) -> None:
    with qemu(directory, "m", *vnc(directory, ",password=on"), stopped=False):
        with connect("m") as session, hypervisor_of(session.machine) as hypervisor:
            hypervisor.set_console_password(session.machine, "s3cret", soon())
        found = chart("m")
        assert found["VNC server"].outcome.value == "ok"
        login = found["VNC login"]
        assert login.outcome.value == "warning"
        assert "asks for a password" in login.account
        assert "it offers VncAuth (2)" in login.account
        assert "--password-file" in str(login.remedy)
        assert outcomes(found)["picture"] == "not tried"

        found = chart("m", password="wr0ng")  # noqa: S106
        link, account, remedy = complaint(found, "vsock device")
        assert link == "VNC login"
        assert "refuses the login with VncAuth" in account
        assert "it offers VncAuth (2)" in account
        assert "is the password right" in remedy
        assert not any("wr0ng" in str(finding) for finding in found.values())

        def picture() -> str:
            found = chart("m", password="s3cret")  # noqa: S106
            assert found["VNC login"].account == "login VncAuth"
            return outcomes(found)["picture"]

        until(lambda: picture() == "ok")  # The firmware may not have begun to write.


def test_an_address_has_no_hypervisor(directory: Path) -> None:
    with qemu(directory, "m", *vnc(directory), stopped=False) as process:
        target = f"vnc+unix:{directory}/m.vnc"
        until(lambda: outcomes(chart(target))["picture"] == "ok")
        found = chart(target)
        assert outcomes(found) == {
            "target": "ok",
            "hypervisor": "not tried",
            "power": "not tried",
            "display": "ok",
            "VNC server": "ok",
            "VNC login": "ok",
            "picture": "ok",
            **dict.fromkeys(list(found)[7:], "not tried"),
        }
        process.send_signal(signal.SIGSTOP)
        try:
            link, account, remedy = complaint(chart(target, seconds=0.5))
        finally:
            process.send_signal(signal.SIGCONT)
        assert link == "VNC server"
        assert f"(process {process.pid}) is stopped" in account
        assert remedy == f"kill -CONT {process.pid}"
        link, account, _ = complaint(chart(f"vnc+unix:{directory}/m.qmp"))
        assert link == "VNC server"
        assert "this is no VNC server" in account
    link, account, _ = complaint(chart(target))
    assert link == "VNC server"
    assert "No such file" in account or "Connection refused" in account


@contextlib.contextmanager
def rfb_server(path: Path, security: bytes) -> Iterator[None]:
    """A server that offers security types which no server here does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.sendall(b"RFB 003.008\n")
                        peer.recv(12)
                        peer.sendall(security)
                        peer.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("security", "link", "words"),
    [
        (b"\x02\x63\x16", "VNC login", "no login that we can make: xvp (22), type 99; it offers"),
        (b"\x00\x00\x00\x00\x04full", "VNC server", "refuses the connection: full"),
        (b"\x01", "VNC server", "in time"),
    ],
)
def test_a_server_that_will_not_have_us(
    directory: Path, security: bytes, link: str, words: str
) -> None:
    with rfb_server(directory / "m.vnc", security):
        ill, account, _ = complaint(chart(f"vnc+unix:{directory}/m.vnc", seconds=1))
    assert ill == link
    assert words in account


def test_the_doctor_holds_nothing_afterwards(directory: Path) -> None:
    with qemu(directory, "m", *vnc(directory)):
        chart("m")
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        chart("m")
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        QmpClient.connect(Unix(str(directory / "m.qmp")), 5).close()
