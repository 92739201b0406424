"""The guest agent through a real libvirtd that has its channel to itself; its lock; its key."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.direct.agent.played import Played, played
from tests.hypervisor.libvirtd import session_daemon
from tests.hypervisor.rig import soon
from vmconnect.deadline import Deadline
from vmconnect.demo import DemoImage
from vmconnect.demo.accelerator import choose_accelerator
from vmconnect.direct.agent import GuestAgent
from vmconnect.direct.agent.temporary_key import authorized_line, temporary_key
from vmconnect.errors import (
    ClosedError,
    DeadlineError,
    GuestError,
    MachineOffError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Libvirt, Machine, PowerState
from vmconnect.journal import JournalFile
from vmconnect.session import Session
from vmconnect.session.agent_access import open_agent, told_host_keys
from vmconnect.session.agent_access import temporary_key as key_by_agent
from vmconnect.session.trust import HostKey
from vmconnect.streams import Unix

WAIT = 60.0
DOMAIN = """
<domain type='qemu'>
  <name>web01</name>
  <memory unit='MiB'>256</memory>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{room}/kernel</kernel><initrd>{room}/initrd</initrd>
    <cmdline>console=tty0 {words}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def domain(demo_image: DemoImage) -> Iterator[Machine]:
    """A real guest of a real libvirtd; there is no vsock to it, only its agent."""
    libvirt = pytest.importorskip("libvirt")
    if shutil.which("libvirtd") is None:
        pytest.skip("needs libvirtd (apt install libvirt-daemon)")
    with session_daemon() as (address, room):
        for name in ("kernel", "initrd"):
            shutil.copyfile(getattr(demo_image, name), room / name)
            (room / name).chmod(0o644)
        words = " ".join(choose_accelerator().kernel_words)
        connection = libvirt.open(address.uri)
        try:
            live = connection.createXML(DOMAIN.format(room=room, words=words))
            try:
                with Libvirt(address) as hypervisor:
                    (machine,) = hypervisor.look_up("web01", soon())
                yield machine
            finally:
                live.destroy()
        finally:
            connection.close()


@pytest.mark.guest
def test_libvirt_passes_requests_on(domain: Machine, demo_image: DemoImage) -> None:
    assert domain.relayed_agent
    deadline = soon()
    while True:  # Until it has booted, nobody answers.
        with contextlib.suppress(DeadlineError), open_agent(domain, 5.0) as agent:
            break
        deadline.check("waiting for the guest's agent")
    with open_agent(domain) as agent:
        assert agent.os_info().name == "vmconnect demo"
        assert agent.run(["sh", "-c", "echo out; exit 3"]).exit_code == 3
        with pytest.raises(UnsupportedError, match="guest-no-such"):
            agent.execute("guest-no-such")
        with pytest.raises(GuestError, match="No such file"):
            agent.read_file("/no/such", limit=10)
        before = agent.authorized_keys("guest")
    assert told_host_keys(domain, soon()) == [HostKey.from_line(demo_image.host_key)]
    with key_by_agent(domain, "guest", "SSH-2.0-OpenSSH_9.2p1", soon()) as key:
        import libvirt

        # Past our own lock, as another program would look at it.
        place = domain.target.partition("?")[2]
        connection = libvirt.open(f"qemu:///session?{place}")
        try:
            import libvirt_qemu

            found = libvirt_qemu.qemuAgentCommand(
                connection.lookupByName("web01"),
                '{"execute": "guest-ssh-get-authorized-keys", "arguments": {"username": "guest"}}',
                30,
                0,
            )
        finally:
            connection.close()
        assert key.get_base64() in found
    with open_agent(domain) as agent:
        assert agent.authorized_keys("guest") == before


def machine_at(path: Path | None) -> Machine:
    return Machine("web01", str(path), f"qemu:{path}", agent=Unix(str(path)) if path else None)


@contextlib.contextmanager
def listening(path: Path, script: Callable[[Played], None] = Played.serve) -> Iterator[Machine]:
    """A played agent behind a socket that serves one client at a time, as QEMU's."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = server.accept()
                with end, contextlib.suppress(EOFError, ConnectionError):
                    script(Played(end))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield machine_at(path)
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def test_one_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def first(machine: Machine) -> None:
        with open_agent(machine, WAIT) as agent:
            inside.set()
            time.sleep(0.2)
            agent.ping()
            order.append("first")

    with listening(tmp_path / "qga") as machine:
        thread = threading.Thread(target=first, args=(machine,))
        thread.start()
        assert inside.wait(WAIT)
        with pytest.raises(DeadlineError, match="another vmconnect"), open_agent(machine, 0.05):
            pass
        with open_agent(machine, WAIT):
            order.append("second")
        thread.join()
        # The lock falls with an exception, too.
        with pytest.raises(KeyboardInterrupt), open_agent(machine, WAIT):
            raise KeyboardInterrupt
        with open_agent(machine, WAIT):
            pass
    assert order == ["first", "second"]


def test_machines_without_one(tmp_path: Path) -> None:
    with (
        pytest.raises(UnsupportedError, match="vmconnect hints web01"),
        open_agent(machine_at(None)),
    ):
        pass
    gone = machine_at(tmp_path / "gone")
    with pytest.raises(VmconnectError, match="web01"), open_agent(gone):
        pass
    assert told_host_keys(gone, Deadline(WAIT)) == []
    assert told_host_keys(machine_at(None), Deadline(WAIT)) == []


@pytest.mark.parametrize(
    ("server", "option"),
    [
        ("SSH-2.0-OpenSSH_9.2p1 Debian-2", "20300102030405Z"),
        ("SSH-2.0-OpenSSH_10.0", "20300102030405Z"),
        ("SSH-2.0-OpenSSH_9.1", "20300102030405Z"),
        ("SSH-2.0-OpenSSH_for_Windows_9.5", "20300102030405Z"),
        ("SSH-2.0-OpenSSH_9.0", "20300102040405"),
        ("SSH-2.0-OpenSSH_8.9p1 Ubuntu", "20300102040405"),
        ("SSH-2.0-OpenSSH_7.7", "20300102040405"),
        ("SSH-2.0-OpenSSH_7.6", None),
        ("SSH-2.0-dropbear_2022.83", None),
        ("", None),
    ],
)
def test_the_expiry_is_in_words_that_the_server_knows(server: str, option: str | None) -> None:
    """The agent is played: its guest is an hour ahead of UTC, two minutes before a round time."""
    lines: list[str] = []
    answers = {
        "guest-get-time": int(datetime(2030, 1, 2, 3, 2, 5, tzinfo=UTC).timestamp() * 1e9),
        "guest-get-timezone": {"offset": 3600},
    }

    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        while True:
            request = agent.request()
            if request["execute"] == "guest-ssh-add-authorized-keys":
                lines.extend(request["arguments"]["keys"])
            agent.reply({"return": answers.get(request["execute"], {"keys": []})})

    with (
        played(script) as channel,
        temporary_key(GuestAgent(channel, "m"), "ann", "x" * 36, server, Deadline(WAIT)) as key,
    ):
        public = f"ssh-ed25519 {key.get_base64()}"
    expires = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert lines == [authorized_line(public, "x" * 36, expires, option)]
    assert lines[0].endswith("expires=2030-01-02T03:04:05Z")


def test_a_key_that_cannot_be_taken_out_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def script(agent: Played) -> None:
        agent.synced(agent.sync())
        for command in ("get-time", "ssh-get-authorized-keys", "ssh-add-authorized-keys"):
            assert agent.request()["execute"] == f"guest-{command}"
            agent.reply({"return": 0 if command == "get-time" else {"keys": []}})

    with played(script) as channel:
        agent = GuestAgent(channel, "web01")
        with temporary_key(agent, "ann", "x" * 36, "", Deadline(WAIT)):
            pass
    assert "a key stays in ann's authorized_keys until it expires" in caplog.text


def bare(machine: Machine) -> Machine:
    """One that no hypervisor can be asked about."""
    return replace(machine, target=f"vnc+unix:{machine.identity}")


def test_a_session_gives_its_agent_and_notes_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with listening(tmp_path / "qga") as machine:
        with Session(bare(machine)) as session:
            with session.agent(WAIT) as agent:
                agent.ping()
                agent.set_password("ann", "tell-n0body")
                with pytest.raises(DeadlineError), open_agent(machine, 0.05):
                    pass
            with session.agent(WAIT) as again:
                again.add_authorized_keys("ann", ["ssh-ed25519 AAAA one"])
        with pytest.raises(ClosedError), session.agent(WAIT):
            pass
    entries = JournalFile().entries()
    assert [each.what for each in entries] == ["agent.set_password", "agent.add_keys"]
    assert entries[0].details == {"user": "ann", "crypted": False}
    assert "tell-n0body" not in JournalFile().path.read_text()


def test_a_session_that_is_closed_wakes_who_waits_for_its_agent(tmp_path: Path) -> None:
    heard = threading.Event()

    def deaf(agent: Played) -> None:
        while True:
            if agent.request()["execute"] == "guest-sync-delimited":
                agent.synced(agent.requests[-1]["arguments"]["id"])
            elif agent.requests[-1]["execute"] == "guest-ping":
                agent.reply({"return": {}, "id": agent.requests[-1]["id"]})
            else:
                heard.set()

    with listening(tmp_path / "qga", deaf) as machine:
        session = Session(bare(machine))

        def close() -> None:
            heard.wait(WAIT)
            session.close()

        thread = threading.Thread(target=close)
        thread.start()
        with pytest.raises(ClosedError), session.agent(WAIT) as agent:
            agent.execute("guest-never", timeout=None)
        thread.join()


def test_a_machine_that_is_off_has_no_agent(tmp_path: Path) -> None:
    machine = replace(bare(machine_at(tmp_path / "qga")), state=PowerState.OFF)
    with Session(machine) as session, pytest.raises(MachineOffError), session.agent():
        pass
