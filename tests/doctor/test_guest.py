"""Guests that are broken on purpose, each link by itself: the demo machine's, and bare devices.

The vsock devices here are of user space. A machine whose guest is reached by the kernel's vsock is
dialled by its context id, which needs a host that has such a guest: no test here does that.
"""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.doctor.ward import chart, complaint, outcomes
from tests.hypervisor.rig import qemu, soon
from vmconnect.demo import DemoImage, DemoMachine
from vmconnect.direct import Guest
from vmconnect.session import TrustStore
from vmconnect.session.trust import HostKey

pytestmark = pytest.mark.guest

BOOT_SECONDS = 90.0


@pytest.fixture(autouse=True)
def state(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(directory / "state"))
    monkeypatch.setenv("HOME", str(directory))


@pytest.fixture(scope="module")
def ill_machine(demo_image: DemoImage) -> Iterator[DemoMachine]:
    """A machine whose guest the tests break and mend."""
    with DemoMachine.start("ill", image=demo_image) as machine:
        with vmconnect.connect(machine.name) as session:
            session.guest(timeout=BOOT_SECONDS, wait=True)
        yield machine


@pytest.fixture
def guest(ill_machine: DemoMachine) -> Iterator[Guest]:
    """A connection that stands while the way to others is broken."""
    with vmconnect.connect(ill_machine.name) as session:
        yield session.guest(timeout=BOOT_SECONDS, wait=True)


def sh(guest: Guest, script: str) -> str:
    result = guest.run(["sh", "-c", script], timeout=60)
    assert result.ok, result.stderr
    return result.text


@contextlib.contextmanager
def sshd_replaced(guest: Guest, script: str) -> Iterator[None]:
    """Let another program answer on the SSH server's port."""
    sh(guest, "mv /usr/sbin/sshd /usr/sbin/sshd.real")
    sh(guest, f"printf '#!/bin/sh\\n{script}\\n' >/usr/sbin/sshd; chmod 755 /usr/sbin/sshd")
    try:
        yield
    finally:
        sh(guest, "mv /usr/sbin/sshd.real /usr/sbin/sshd")


def test_a_machine_that_is_well(demo_machine: DemoMachine) -> None:
    found = chart(demo_machine.name)
    assert set(outcomes(found).values()) == {"ok"}
    assert "SSH-2.0-OpenSSH" in found["SSH server"].account
    assert found["login"].account == f"as root by key {demo_machine.client_key}"


def test_a_paused_machine_is_not_a_broken_one(ill_machine: DemoMachine) -> None:
    from vmconnect.hypervisor import QmpClient
    from vmconnect.streams import Unix

    with QmpClient.connect(Unix(str(ill_machine.qmp_path))) as monitor:
        monitor.execute("stop")
    try:
        found = chart(ill_machine.name)
    finally:
        with QmpClient.connect(Unix(str(ill_machine.qmp_path))) as monitor:
            monitor.execute("cont")
    told = outcomes(found)
    assert told["power"] == "warning"
    assert told["picture"] == "ok"
    assert told["guest driver"] == "ok"
    assert [told[name] for name in list(told)[9:]] == ["not tried"] * 5
    assert "paused" in found["shell"].account


def test_a_machine_that_has_not_begun(fresh_machine: type[DemoMachine]) -> None:
    with fresh_machine.start("unborn", paused=True) as machine:
        found = chart(machine.name)
    assert "broken" not in outcomes(found).values()
    assert "paused" in found["guest driver"].account


def test_nobody_listens_on_the_port(ill_machine: DemoMachine, guest: Guest) -> None:
    # init starts the listener again and again, and fails.
    sh(guest, "mv /usr/bin/socat /usr/bin/socat.off; kill $(pidof socat)")
    try:
        link, account, remedy = complaint(chart(ill_machine.name))
    finally:
        sh(guest, "mv /usr/bin/socat.off /usr/bin/socat")
    assert link == "guest port"
    assert account == "nothing listens on vsock port 22 of the guest"
    assert "systemd 256" in remedy
    assert "ListenStream=vsock::22" in remedy
    assert "sshd -i" in remedy
    until(lambda: outcomes(chart(ill_machine.name))["guest port"] == "ok")


def until(condition: Callable[[], bool]) -> None:
    deadline = soon()
    while not condition():
        deadline.check("waiting for the condition")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 30", "timed out while waiting for the SSH server"),
        ("exit 1", "hung up before it greeted"),
        ("echo HTTP/1.1 200 OK; exec sleep 30", "timed out while waiting for the SSH server"),
    ],
)
def test_what_answers_is_no_ssh_server(
    ill_machine: DemoMachine, guest: Guest, script: str, words: str
) -> None:
    with sshd_replaced(guest, script):
        link, account, remedy = complaint(chart(ill_machine.name, seconds=4))
    assert link == "SSH server"
    assert words in account
    assert remedy


def test_a_host_key_that_is_unknown_and_one_that_has_changed(demo_machine: DemoMachine) -> None:
    target = f"vsock-mux{demo_machine.vsock_path}"
    found = chart(target, user="root", identity_files=[demo_machine.client_key])
    assert outcomes(found)["hypervisor"] == "not tried"
    assert outcomes(found)["display"] == "not tried"
    link, account, remedy = complaint(found)
    assert link == "host key"
    assert "is not known yet" in account
    assert "--accept-new-host-key" in remedy
    assert TrustStore().pinned(target) == []  # The doctor trusts nobody.

    TrustStore().pin(target, HostKey("ssh-ed25519", b"another machine's"))
    link, account, _ = complaint(
        chart(target, user="root", identity_files=[demo_machine.client_key])
    )
    assert link == "host key"
    assert "has changed" in account

    TrustStore().forget(target)
    key = HostKey.from_line(demo_machine.image.host_key)
    assert key is not None
    TrustStore().pin(target, key)
    found = chart(target, user="root", identity_files=[demo_machine.client_key])
    assert outcomes(found)["shell"] == "ok"
    assert found["host key"].account == f"it is the one that is pinned to {target}"


def test_a_login_that_is_refused(demo_machine: DemoMachine, directory: Path) -> None:
    link, account, remedy = complaint(chart(demo_machine.name, user="nobody"))
    assert link == "login"
    assert f"login as nobody refused; tried key {demo_machine.client_key}" in account
    assert "the server offers publickey" in account
    assert "-l" in remedy

    other = directory / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    link, account, _ = complaint(chart(demo_machine.name, identity_files=[other]))
    assert link == "login"
    assert f"tried key {other}" in account

    link, account, _ = complaint(chart(demo_machine.name, identity_files=[directory / "none"]))
    assert link in {"login", "SSH server"}
    assert "No such file" in account


@pytest.mark.parametrize(
    ("shell", "outcome", "words"),
    [
        ("exit 3", "broken", "exit code 3"),
        ("echo bad shell >&2; exit 127", "broken", "saying 'bad shell'"),
        ("kill -TERM $$", "broken", "SIGTERM"),
        ('echo Welcome; exec /bin/sh "$@"', "warning", "'Welcome'"),
    ],
)
def test_a_shell_that_is_broken(
    ill_machine: DemoMachine, guest: Guest, shell: str, outcome: str, words: str
) -> None:
    sh(guest, f"printf '%s\\n' '#!/bin/sh' '{shell}' >/tmp/shell; chmod 755 /tmp/shell")
    sh(guest, "cp /etc/passwd /etc/passwd.good")
    sh(guest, "sed -i '/^root:/s,[^:]*$,/tmp/shell,' /etc/passwd; echo /tmp/shell >>/etc/shells")
    try:
        found = chart(ill_machine.name)
    finally:
        # The connection that stands has looked its shell up before.
        sh(guest, "cp /etc/passwd.good /etc/passwd")
    assert found["shell"].outcome.value == outcome
    assert words in found["shell"].account
    assert found["shell"].remedy
    assert found["login"].outcome.value == "ok"


# Devices whose guest is not there.


@contextlib.contextmanager
def vsock_device(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The device, with nothing behind it yet."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "vmconnect", "vsock-device", "--cid", "7"),
            *("--socket", f"{directory}/m.vu", "--uds", f"{directory}/m.vsock"),
        ]
    )
    try:
        deadline = soon()
        while not (directory / "m.vsock").exists():
            deadline.check("waiting for the device")
        yield process
    finally:
        process.terminate()
        process.wait()


def device_options(directory: Path) -> list[str]:
    return [
        *("-m", "64", "-object", "memory-backend-memfd,id=m,size=64M,share=on"),
        *("-machine", "q35,memory-backend=m"),
        *("-chardev", f"socket,id=vs,path={directory}/m.vu"),
        *("-device", "vhost-user-vsock-pci,chardev=vs", "-vga", "std"),
        *("-vnc", f"unix:{directory}/m.vnc"),
    ]


@pytest.fixture
def only_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMCONNECT_HYPERVISORS", str(directory))
    return directory


def test_a_device_and_no_driver(only_place: Path) -> None:
    with (
        vsock_device(only_place) as device,
        qemu(only_place, "m", *device_options(only_place), stopped=False),
    ):
        found = chart("m")
        assert outcomes(found)["vsock device"] == "ok"
        link, account, remedy = complaint(found)
        assert link == "guest driver"
        assert account == "the guest has no driver on its vsock device"
        assert "vmw_vsock_virtio_transport" in remedy

        # Its socket is somewhere else.
        (only_place / "m.vsock").rename(only_place / "elsewhere")
        link, account, remedy = complaint(chart("m"))
        assert link == "vsock device"
        assert "nothing tells where its socket is" in account
        assert "m.vsock" in remedy
        (only_place / "elsewhere").rename(only_place / "m.vsock")

        device.send_signal(signal.SIGKILL)
        device.wait()
        link, account, _ = complaint(chart("m"))
        assert link == "vsock device"
        assert "Connection refused" in account


def test_a_device_that_belongs_to_no_machine(only_place: Path) -> None:
    with vsock_device(only_place), qemu(only_place, "m"):
        found = chart("m")
    assert outcomes(found)["vsock device"] == "ok"
    assert found["guest driver"].account == "the machine has no vsock device"
    assert outcomes(found)["guest port"] == "not tried"
    assert complaint(chart(f"vsock-mux{only_place}/none"))[0] == "vsock device"


def test_a_guest_that_does_not_answer_at_all(only_place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(only_place / "v"))
        silent.listen()
        link, account, remedy = complaint(chart(f"vsock-mux{only_place}/v", seconds=0.5))
    assert link == "guest port"
    assert "does not answer at all" in account
    assert "vmconnect console" in remedy
