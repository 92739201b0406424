"""One real machine, its screen and its guest, reached in every way there is."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmconnect
from tests.doctor.ward import chart, complaint, outcomes
from tests.hypervisor.rest_servers import CloudHypervisorModel, FirecrackerModel, serving
from tests.hypervisor.rig import qemu
from tests.streams.far_host import FarHost, far_host
from tests.vnc.authority import Authority
from vmconnect.demo import DemoMachine
from vmconnect.errors import (
    ConnectError,
    TrustError,
    UnsupportedError,
)
from vmconnect.hypervisor import PowerState, Qemu
from vmconnect.session import HostKey, hypervisor_of, parse_target, resolve
from vmconnect.streams import HybridVsock, SshHost, ThroughSsh, Unix, WebSocket
from vmconnect.vnc.policy import Policy

WAIT = 60.0


@pytest.fixture(scope="module")
def kvm7() -> Iterator[FarHost]:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, far_host(Path(name)) as host:
        yield host


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a CA that has made out a certificate to localhost."""
    authority = Authority(tmp_path_factory.mktemp("ca") / "ca")
    authority.issue("server", "localhost", old=True)  # x11vnc wants an RSA key.
    return authority


@contextlib.contextmanager
def websockify(machine: DemoMachine, *options: str) -> Iterator[int]:
    """Run websockify in front of the machine's screen; give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        arguments = [sys.executable, "-m", "websockify", "--inetd", *options]
        process = subprocess.Popen(
            [*arguments, f"--unix-target={machine.vnc_path}"],
            stdin=listener.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.wait()


def screen(target: str, policy: Policy | None = None, word: str = "login:") -> list[str]:
    """Return the text on the screen, once it has the word."""
    with vmconnect.connect(target, timeout=WAIT) as session:
        console = session.console(policy=policy, timeout=WAIT)
        console.wait_for(lambda screen: word in "".join(screen.text() or []), WAIT)
        return console.text() or []


# WebSocket and TLS.


@pytest.mark.guest
def test_websockify(demo_machine: DemoMachine) -> None:
    with websockify(demo_machine) as port:
        assert screen(f"ws://127.0.0.1:{port}/websockify") == screen(demo_machine.name)


@pytest.mark.guest
def test_websockify_with_tls(demo_machine: DemoMachine, authority: Authority) -> None:
    options = (
        f"--cert={authority.directory}/server-cert.pem",
        f"--key={authority.directory}/server-key.pem",
        "--ssl-only",
    )
    with websockify(demo_machine, *options) as port:
        target = f"wss://localhost:{port}/websockify?token=s3cret"
        policy = Policy(authority=authority.certificate)
        assert screen(target, policy) == screen(demo_machine.name)
        with pytest.raises(TrustError) as caught:
            screen(target)
        assert "s3cret" not in str(caught.value)
        with pytest.raises(TrustError):  # The certificate is localhost's.
            screen(target.replace("localhost", "127.0.0.1"), policy)
        with pytest.raises(ConnectError):
            screen(f"ws://localhost:{port}/")
        picture = Path(authority.directory, "screen.png")
        subprocess.run(
            [
                *(sys.executable, "-m", "vmconnect", "screenshot"),
                *("--ca", str(authority.certificate), "-o", str(picture), target),
            ],
            check=True,
            timeout=WAIT,
        )
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_qemu_s_own_websocket(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="vmc-") as name:
        vnc = f"unix:{name}/vnc,websocket=127.0.0.1:{port}"
        with qemu(Path(name), "m", "-vga", "std", "-vnc", vnc, "-m", "32", stopped=False):
            assert screen(f"ws://127.0.0.1:{port}", word="SeaBIOS")
            # It is found by its monitor, too, where plain RFB comes first.
            machine = resolve(parse_target(f"qemu:{name}/m.qmp"))
            assert machine.console == Unix(f"{name}/vnc")


def test_x11vnc_with_tls(authority: Authority, tmp_path: Path) -> None:
    if shutil.which("x11vnc") is None:
        pytest.skip("needs x11vnc (apt install x11vnc)")
    pem, pixels = tmp_path / "both.pem", tmp_path / "pixels"
    pem.write_bytes(
        b"".join(
            (authority.directory / f"server-{each}.pem").read_bytes() for each in ("cert", "key")
        )
    )
    pixels.write_bytes(b"\x00\x00\xff\x00" * (64 * 48))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                subprocess.run(
                    [
                        *("x11vnc", "-inetd", "-ssl", str(pem), "-nopw", "-q"),
                        *("-rawfb", f"map:{pixels}@64x48x32"),
                    ],
                    stdin=sock.fileno(),
                    stdout=sock.fileno(),
                    stderr=subprocess.DEVNULL,
                    check=False,
                )

        thread = threading.Thread(target=serve)
        thread.start()
        target = f"vnc+tls://localhost:{listener.getsockname()[1]}?VncUsername=ann"
        with vmconnect.connect(target) as session:
            console = session.console(policy=Policy(authority=authority.certificate), timeout=WAIT)
            assert console.size == (64, 48)
            assert console.rgb(WAIT)[0, 0].tolist() == [255, 0, 0]
        thread.join(WAIT)


# Through ssh.


@pytest.mark.guest
@pytest.mark.parametrize("form", ["qemu:{0.qmp_path}", "vnc+unix:{0.vnc_path}"])
def test_a_screen_on_another_host(demo_machine: DemoMachine, kvm7: FarHost, form: str) -> None:
    target = f"ssh://{kvm7.name}/{form.format(demo_machine)}"
    assert screen(target) == screen(demo_machine.name)


@pytest.mark.guest
def test_a_websocket_on_another_host(demo_machine: DemoMachine, kvm7: FarHost) -> None:
    with websockify(demo_machine) as port:
        target = f"ssh://{kvm7.name}/ws://127.0.0.1:{port}/websockify"
        assert screen(target) == screen(demo_machine.name)
        machine = resolve(parse_target(target))
    assert isinstance(machine.console, WebSocket)
    assert not machine.console.local


@pytest.mark.guest
def test_both_channels_go_through_the_same_host(demo_machine: DemoMachine, kvm7: FarHost) -> None:
    host = SshHost(kvm7.name)
    target = f"ssh://{host}/qemu:{demo_machine.qmp_path}"
    with vmconnect.connect(target, timeout=WAIT) as session:
        machine = session.machine
        assert machine.target == target
        assert machine.uuid == machine.identity == demo_machine.uuid
        assert machine.console == ThroughSsh(host, Unix(str(demo_machine.vnc_path)))
        assert machine.guest == ThroughSsh(host, HybridVsock(str(demo_machine.vsock_path), 22))
        assert machine.agent == ThroughSsh(host, Unix(str(demo_machine.agent_path)))
        # A note that lies there is no word of our own: this host's files are not those.
        assert machine.note.host_key is None
        guest = session.guest(user="root", identity_files=[demo_machine.client_key], timeout=WAIT)
        # But its guest agent, which is reached by the same host, tells the key.
        (pinned,) = session.trust.pinned(demo_machine.uuid)
        assert pinned == HostKey.from_line(demo_machine.image.host_key)
        assert guest.run(["echo", "there"]).text == "there\n"
        data = bytes(range(256)) * 4000
        assert guest.run(["cat"], stdin=data).stdout == data
        console = session.console(timeout=WAIT)
        assert console.size
        session.trust.forget(demo_machine.uuid)
    assert len(kvm7.masters()) == 1


@pytest.mark.guest
def test_the_command_line(demo_machine: DemoMachine, kvm7: FarHost, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vmconnect", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=WAIT,
            check=False,
        )

    login = ("-l", "root", "-i", str(demo_machine.client_key), "--accept-new-host-key")
    there = f"ssh://{kvm7.name}/vsock-mux{demo_machine.vsock_path}"
    result = run("exec", *login, there, "--", "uname", "-n")
    assert (result.returncode, result.stdout) == (0, "demo\n"), result.stderr
    picture = tmp_path / "screen.png"
    result = run(
        "screenshot", f"ssh://{kvm7.name}/qemu:{demo_machine.qmp_path}", "-o", str(picture)
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = run("exec", f"ssh://{kvm7.name}/vsock-mux/nonexistent", "--", "true")
    assert result.returncode == 255
    assert result.stderr.count("\n") == 1
    assert "cannot connect to /nonexistent on kvm7: No such file" in result.stderr


def test_power_on_another_host(kvm7: FarHost) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        qemu(Path(name), "m", "-vnc", "none", "-serial", "pty"),
    ):
        machine = resolve(parse_target(f"ssh://{kvm7.name}/qemu:{name}/m.qmp"), WAIT)
        assert machine.state is PowerState.PAUSED
        assert machine.identity == f"ssh://{kvm7.name}/qemu:{name}/m.qmp"
        assert (machine.console, machine.guest, machine.serial) == (None, None, None)
        assert not machine.handed_console
        deadline = vmconnect.Deadline(WAIT)
        with hypervisor_of(machine) as hypervisor:
            hypervisor.resume(machine, deadline)
            assert hypervisor.refresh(machine, deadline).state is PowerState.RUNNING
            with pytest.raises(UnsupportedError, match="another host"):
                hypervisor.screenshot(machine, deadline)
            with pytest.raises(UnsupportedError, match="not listed"):
                hypervisor.machines(deadline)
            hypervisor.power_off(machine, deadline)


def test_a_machine_is_looked_up_on_another_host(kvm7: FarHost) -> None:
    deadline = vmconnect.Deadline(WAIT)
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, qemu(Path(name), "m"):
        there = Qemu(Path(name), SshHost(kvm7.name))
        (machine,) = there.look_up("m", deadline)
        assert machine == resolve(parse_target(f"ssh://{kvm7.name}/qemu:{name}/m.qmp"), WAIT)
        with pytest.raises(UnsupportedError, match="not listed"):
            there.look_up("other", deadline)


@pytest.mark.guest
def test_the_doctor_examines_a_machine_on_another_host(
    demo_machine: DemoMachine, kvm7: FarHost
) -> None:
    found = chart(
        f"ssh://{kvm7.name}/qemu:{demo_machine.qmp_path}",
        user="root",
        identity_files=[demo_machine.client_key],
    )
    assert {*outcomes(found).values()} == {"ok"}
    assert found["vsock device"].account == f"vsock-mux{demo_machine.vsock_path}:22 on kvm7"


def test_the_doctor_looks_at_no_process_of_this_host_for_another(kvm7: FarHost) -> None:
    with tempfile.TemporaryDirectory(prefix="vmc-") as name, qemu(Path(name), "m") as process:
        process.send_signal(signal.SIGSTOP)
        try:
            found = chart(f"ssh://{kvm7.name}/qemu:{name}/m.qmp")
        finally:
            process.send_signal(signal.SIGCONT)
    link, account, _ = complaint(found)
    assert link == "hypervisor"
    assert account == f"QEMU does not answer at {name}/m.qmp on kvm7: it hangs, or is busy"


def test_machines_with_a_rest_api_on_another_host(kvm7: FarHost) -> None:
    """The servers are the tests' own: neither hypervisor runs here."""
    host, deadline = SshHost(kvm7.name), vmconnect.Deadline(WAIT)
    config = {"vsock": {"cid": 3, "socket": "/run/ch.vsock"}, "serial": {"mode": "Off"}}
    cloud = CloudHypervisorModel(config | {"console": {"mode": "Pty", "file": "/dev/pts/9"}})
    fire = FirecrackerModel({"vsock": {"guest_cid": 3, "uds_path": "/run/fc.vsock"}})
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        serving(cloud, Path(name, "m.ch")),
        serving(fire, Path(name, "m.fc")),
    ):
        for kind in ("ch", "fc"):
            target = f"ssh://{host}/{kind}:{name}/m.{kind}"
            machine = resolve(parse_target(target), deadline)
            assert machine.target == target
            assert machine.guest == ThroughSsh(host, HybridVsock(f"/run/{kind}.vsock", 22))
            assert machine.serial is None
            with hypervisor_of(machine) as hypervisor:
                hypervisor.power_on(machine, deadline)
                assert hypervisor.refresh(machine, deadline).state is PowerState.RUNNING
                with pytest.raises(UnsupportedError, match="its own host"):
                    hypervisor.create_checkpoint(machine, "clean", deadline)
                with pytest.raises(UnsupportedError, match="not listed"):
                    hypervisor.machines(deadline)


def test_a_socket_that_is_not_there_is_told(kvm7: FarHost) -> None:
    for kind in ("qemu", "ch", "fc"):
        with pytest.raises(ConnectError, match="on kvm7: No such file"):
            resolve(parse_target(f"ssh://{kvm7.name}/{kind}:/nonexistent/s"), WAIT)


def test_ssh_asks_whoever_is_at_the_terminal() -> None:
    """About a host key that it does not know, and for the passphrase of a key."""
    with (
        tempfile.TemporaryDirectory(prefix="vmc-") as name,
        far_host(Path(name)) as host,
        qemu(Path(name), "m"),
    ):
        key = Path(name, "locked_key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", key], check=True)
        host.know(None)
        host.configure(f"IdentityFile {key}")
        host.serve(f"AuthorizedKeysFile {key}.pub")
        target = f"ssh://{host.name}/qemu:{name}/m.qmp"
        child, terminal = pty.fork()
        if child == 0:
            argv = [sys.executable, "-m", "vmconnect", "power", target, "resume"]
            os.execv(sys.executable, argv)  # noqa: S606
        shown = read_until(terminal, b"(yes/no/[fingerprint])? ")
        os.write(terminal, b"yes\n")
        shown += read_until(terminal, b"passphrase for key")
        os.write(terminal, b"sesame\n")
        shown += read_until(terminal, None)
        os.close(terminal)
        _pid, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, shown
        assert b"sesame" not in shown
        # The connection is there now, and nobody is asked again.
        assert resolve(parse_target(target), WAIT).state is PowerState.RUNNING


def read_until(terminal: int, words: bytes | None) -> bytes:
    """Read a terminal up to some words, or to its end."""
    shown = b""
    with contextlib.suppress(OSError):  # EIO is a terminal's end of file.
        while (words is None or words not in shown) and (data := os.read(terminal, 1000)):
            shown += data
    assert words is None or words in shown, shown
    return shown
