"""What sessions leave in the journal, and what they must not."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vmconnect
from tests.hypervisor.rest_servers import CloudHypervisorModel, serving
from tests.hypervisor.rig import qemu, soon
from tests.secrecy import assert_hidden_in
from vmconnect.channel import Channel, ChannelState
from vmconnect.demo import DemoMachine
from vmconnect.direct import Guest
from vmconnect.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    GuestError,
    UnsupportedError,
    VmconnectError,
)
from vmconnect.hypervisor import Machine
from vmconnect.journal import Entry, JournalFile
from vmconnect.journal.writer import command_words, without_secrets
from vmconnect.session import Session, connect, hypervisor_of
from vmconnect.session.journal import journalled

Noted = Callable[[], list[Entry]]


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Noted:
    """A journal of the test's own; returns what has been noted since it was last asked."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    seen = 0

    def entries() -> list[Entry]:
        nonlocal seen
        found = JournalFile().entries()
        seen, before = len(found), seen
        return found[before:]

    return entries


def kinds(entries: list[Entry]) -> list[str]:
    return [each.what if each.ok else f"{each.what}: {each.error}" for each in entries]


def set_for_good(text: str) -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"], "vmconnect", "settings.toml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


@pytest.fixture(autouse=True)
def no_settings() -> Iterator[None]:
    """Leave no settings to others."""
    yield
    set_for_good("")


def test_a_console_is_opened_and_closed(directory: Path, noted: Noted) -> None:
    uuid = "0a0b0c0d-0001-4002-8003-000000000004"
    vnc = ("-vga", "std", "-vnc", f"unix:{directory}/m.vnc")
    with qemu(directory, "m", "-uuid", uuid, *vnc), connect(f"qemu:{directory}/m.qmp") as session:
        console = session.console()
        (opened,) = noted()
        console.keyboard.type("s3cret")
        console.close()
        (closed,) = noted()
    assert (opened.what, opened.machine, opened.uuid) == ("console.open", "m", uuid)
    assert opened.target == f"qemu:{directory}/m.qmp"
    assert (opened.uid, opened.pid) == (os.getuid(), os.getpid())
    assert opened.details == {"login": "None", "encrypted": False}
    assert opened.time.endswith("Z")
    assert closed.what == "console.close"
    assert closed.ok
    assert closed.received is not None
    assert closed.received > 1000


def test_a_console_that_does_not_open_is_noted(directory: Path, noted: Noted) -> None:
    with qemu(directory, "m", "-vga", "std"), connect(f"qemu:{directory}/m.qmp") as session:
        with pytest.raises(UnsupportedError):
            session.console()
        (entry,) = noted()
    assert (entry.what, entry.error) == ("console.open", "UnsupportedError")
    assert entry.message == "no console is known of it"


def test_a_websocket_s_token_is_not_noted(noted: Noted) -> None:
    target = "ws://127.0.0.1:1/path?word=s3cret"
    with connect(target) as session, pytest.raises(ConnectError):
        session.console()
    (entry,) = noted()
    assert entry.target == entry.machine
    assert b"s3cret" not in JournalFile().path.read_bytes()


def test_a_server_s_end_is_noted_with_the_reason(directory: Path, noted: Noted) -> None:
    vnc = ("-vga", "std", "-vnc", f"unix:{directory}/m.vnc")
    with qemu(directory, "m", *vnc) as process, connect(f"qemu:{directory}/m.qmp") as session:
        console = session.console()
        process.kill()
        console.wait_for(lambda each: each.state is ChannelState.LOST, 60)
    assert kinds(noted()) == ["console.open", "console.lost: ConnectionLostError", "console.close"]


def test_what_a_hypervisor_is_told_is_noted_by_whomever(directory: Path, noted: Noted) -> None:
    options = ("-vga", "std", "-vnc", f"unix:{directory}/m.vnc,password=on")
    with qemu(directory, "m", *options), connect(f"qemu:{directory}/m.qmp") as session:
        machine = session.machine
        with hypervisor_of(machine) as hypervisor:
            hypervisor.power_on(machine, soon())
            hypervisor.pause(machine, deadline=soon())
            hypervisor.send_keys(machine, [30, 31, 32], soon())
            hypervisor.set_console_password(machine, "s3cret", soon(), valid_s=60)
            hypervisor.screenshot(machine, soon())
            assert hypervisor.drives(machine, soon()) == []
            hypervisor.refresh(machine, soon())
            with pytest.raises(UnsupportedError):
                hypervisor.create_checkpoint(machine, "clean", soon())
            with pytest.raises(UnsupportedError):
                hypervisor.eject_medium(machine, soon(), force=True)
            hypervisor.open_console(machine, soon()).close()
            with pytest.raises(TypeError):
                hypervisor.reset(machine, soon(), "nonsense")  # type: ignore[call-arg]
            hypervisor.power_off(machine, soon())
            password = "s3cret"  # noqa: S105 (it is no real one)
            with pytest.raises(VmconnectError) as refused:
                hypervisor.set_console_password(machine, password, soon())
            assert_hidden_in(password, refused.value)
    *entries, last = noted()
    assert (last.what, last.error) == ("console.password", type(refused.value).__name__)
    assert kinds(entries) == [
        "power.on",
        "power.pause",
        "keys.send",
        "console.password",
        "screen.shot",
        "checkpoint.create: UnsupportedError",
        "media.eject: UnsupportedError",
        "console.handed",
        "power.off",
    ]
    details = {each.what: each.details for each in entries}
    assert details["keys.send"] == {"keys": 3}
    assert details["console.password"] == {"valid_s": 60}
    assert details["checkpoint.create"] == {"name": "clean"}
    assert details["media.eject"] == {"force": True}
    assert b"s3cret" not in JournalFile().path.read_bytes()


def test_what_is_done_on_the_way_is_no_entry_of_its_own(directory: Path, noted: Noted) -> None:
    cloud = CloudHypervisorModel({"payload": {}})
    cloud.state = "Running"
    with serving(cloud, directory / "m.ch"), connect(f"ch:{directory}/m.ch") as session:
        with hypervisor_of(session.machine) as hypervisor:
            hypervisor.create_checkpoint(session.machine, "clean", soon())
        assert cloud.asked.count("vm.pause") == 1
    assert kinds(noted()) == ["checkpoint.create"]
    with qemu(directory, "h", "-vga", "std", "-vnc", "none"):
        with connect(f"qemu:{directory}/h.qmp") as session:
            session.console(timeout=60)
        assert kinds(noted()) == ["console.open", "console.close"]


@pytest.mark.guest
def test_what_is_run_and_copied_is_noted_and_no_contents(
    demo_machine: DemoMachine, noted: Noted, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    local.write_text("contents-of-a-file")
    with connect(demo_machine.name) as session:
        guest = session.guest(timeout=60)
        guest.run(["sh", "-c", "cat; echo out-s3cret; exit 3", "arg-s3cret"], stdin=b"in-s3cret")
        guest.run(["cat"], stdin=iter([b"xx", b"yyy"]), stdout=lambda _: None)
        guest.put(local, "/tmp/noted")
        guest.get("/tmp/noted", tmp_path / "back")
        with pytest.raises(GuestError):
            guest.get("/tmp/none", tmp_path / "back")
        with pytest.raises(vmconnect.VmconnectError):
            guest.run(["sleep", "100"], timeout=0.2)
    entries = noted()
    assert kinds(entries) == [
        "guest.login",
        "guest.run",
        "guest.run",
        "guest.put",
        "guest.get",
        "guest.get: GuestError",
        "guest.run: DeadlineError",
        "guest.close",
    ]
    login, first, second, put, get, failed, *_ = entries
    assert login.details == {"user": "root", "method": f"key {demo_machine.client_key}"}
    assert login.uuid == demo_machine.uuid
    assert first.details == {"program": "sh", "arguments": 3, "exit_code": 3}
    assert (first.sent, first.received) == (9, 9 + 11)
    assert (second.sent, second.received) == (5, 5)
    assert put.details == {"local": str(local), "remote": "/tmp/noted"}
    assert (put.sent, put.received, get.sent, get.received) == (18, None, None, 18)
    assert failed.message == "cannot copy /tmp/none: No such file or directory"
    data = JournalFile().path.read_bytes()
    assert b"s3cret" not in data
    assert b"contents" not in data

    set_for_good("[journal]\narguments = true\n")
    with connect(demo_machine.name) as session:
        session.guest(timeout=60).run(["echo", "a b", "c"])
    assert noted()[1].details == {"argv": ["echo", "a b", "c"], "exit_code": 0}


@pytest.mark.guest
@pytest.mark.parametrize("whole", [False, True])
def test_a_command_is_noted_once_as_what_it_is(
    demo_machine: DemoMachine, noted: Noted, tmp_path: Path, whole: bool
) -> None:
    set_for_good(f"[journal]\narguments = {str(whole).lower()}\n")
    script = tmp_path / "ask.sh"
    script.write_text("exit 4\n")
    with connect(demo_machine.name) as session:
        guest = session.guest(timeout=60)
        noted()
        job = guest.jobs().start(["sh", "-c", "cat; sleep 0.3"], stdin=b"abc")
        assert job.result(60).stdout == b"abc"
        assert not guest.jobs().get(job.name).signal("INT")
        job.kill()
        job.forget()
        assert guest.jobs().list() == []
        jobs = noted()
        with guest.named("noted") as named:
            named.run(["sh", "-c", "cat; exit 3"], stdin=b"abcd")
            named.run("A=s3cret; echo $A", stdout=lambda _: None)
            assert named.status() is not None
        named_calls = noted()
        guest.script(script, ["-x"])
        guest.call("def main(): return 1")
        guest.info()
        others = noted()
    assert kinds(jobs) == [
        "guest.start_job",
        "guest.signal_job",
        "guest.kill_job",
        "guest.forget_job",
    ]
    assert all(each.details["job"] == job.name for each in jobs)
    assert (jobs[0].sent, jobs[0].received) == (3, 0)
    assert kinds(named_calls) == ["guest.session_run"] * 2 + ["guest.session_close"]
    assert all(each.details["session"] == "noted" for each in named_calls)
    first, second, _ = named_calls
    assert (first.sent, first.received, second.sent, second.received) == (4, 4, 0, 7)
    assert [each.details.get("exit_code") for each in named_calls] == [3, 0, None]
    assert kinds(others) == ["guest.script", "guest.call"]
    assert others[0].details["exit_code"] == 4
    assert others[1].details["function"] == "main"
    words = [each.details.get("argv") for each in (jobs[0], first, second, others[0])]
    if whole:
        assert words == [
            ["sh", "-c", "cat; sleep 0.3"],
            ["sh", "-c", "cat; exit 3"],
            ["sh", "-c", "A=s3cret; echo $A"],
            ["ask.sh", "-x"],
        ]
    else:
        assert words == [None] * 4
        assert b"s3cret" not in JournalFile().path.read_bytes()
        assert jobs[0].details == {"program": "sh", "arguments": 2, "job": job.name}


@pytest.mark.guest
def test_what_fails_is_noted_as_that(demo_machine: DemoMachine, noted: Noted) -> None:
    with connect(demo_machine.name) as session:
        guest = session.guest(timeout=60)
        noted()
        job = guest.jobs().start(["sleep", "100"])
        with pytest.raises(VmconnectError):
            job.forget()
        job.kill()
        with guest.named("noted") as named, pytest.raises(VmconnectError):
            named.run("exit 3")
    assert kinds(noted())[:5] == [
        "guest.start_job",
        "guest.forget_job: StateError",
        "guest.kill_job",
        "guest.session_run: StateError",
        "guest.session_close",
    ]


@pytest.mark.guest
def test_a_copy_between_two_guests_is_noted_for_both(
    demo_machine: DemoMachine, noted: Noted
) -> None:
    with connect(demo_machine.name) as session, connect(demo_machine.name) as another:
        source, target = session.guest(timeout=60), another.guest(timeout=60)
        source.run("echo >/tmp/noted")
        target.machine = "web02"  # It is the same one, under two names.
        noted()
        source.copy(source, "/tmp/noted", target, "/tmp/noted2")
        entries = noted()
    assert kinds(entries) == ["guest.copy", "guest.copy"]
    ends = {"source": demo_machine.name, "from": "/tmp/noted", "target": "web02"}
    assert [each.details for each in entries] == [{**ends, "to": "/tmp/noted2"}] * 2
    assert {(each.sent, each.received) for each in entries} == {(1, None), (None, 1)}


@pytest.mark.guest
def test_a_login_that_is_refused_is_noted(demo_machine: DemoMachine, noted: Noted) -> None:
    with connect(demo_machine.name) as session, pytest.raises(AuthenticationError):
        session.guest(user="nobody", timeout=60)
    (entry,) = noted()
    assert (entry.what, entry.error) == ("guest.login", "AuthenticationError")
    assert "login as nobody refused" in str(entry.message)


class Fake(Channel):
    """A channel whose life the test makes: none is lost and comes back at will."""

    login, encrypted = "None", True

    def go(self, *states: ChannelState) -> None:
        for state in states:
            lost = ConnectionLostError("it broke") if state is ChannelState.LOST else None
            self._enter(state, lost)


class FakeSession:
    machine = Machine("web01", "web01", "qemu:/x.qmp")

    @journalled("console", "open", lambda channel: {"login": channel.login})
    def console(self) -> Fake:
        channel = Fake("web01")
        channel.go(ChannelState.READY)
        return channel


def test_a_channel_that_is_lost_and_comes_back_is_noted(noted: Noted) -> None:
    channel = FakeSession().console()
    channel.go(ChannelState.LOST, ChannelState.RECONNECTING, ChannelState.LOST)
    channel.go(ChannelState.RECONNECTING, ChannelState.READY)
    channel.close()
    channel.close()
    entries = noted()
    assert kinds(entries) == [
        "console.open",
        "console.lost: ConnectionLostError",
        "console.open",
        "console.close",
    ]
    assert entries[2].details == {"login": "None", "again": True}


@pytest.mark.parametrize(
    ("variable", "settings", "written"),
    [
        (None, "", True),
        ("0", "", False),
        ("1", "[journal]\nenabled = false\n", True),
        ("", "[journal]\nenabled = false\n", False),
        (None, "[journal]\nenabled = false\n", False),
        (None, "[journal]\nenabled = true\n", True),
        (None, "[other]\nenabled = false\n", True),
    ],
)
def test_it_can_be_turned_off(
    noted: Noted,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    settings: str,
    written: bool,
) -> None:
    set_for_good(settings)
    if variable is None:
        monkeypatch.delenv("VMCONNECT_JOURNAL", raising=False)
    else:
        monkeypatch.setenv("VMCONNECT_JOURNAL", variable)
    FakeSession().console().close()
    assert bool(noted()) is written


@pytest.mark.parametrize("settings", ["journal = 3\n", "[journal\n", "\xff"])
def test_settings_that_cannot_be_read_are_told_once(
    noted: Noted, caplog: pytest.LogCaptureFixture, settings: str
) -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"], "vmconnect", "settings.toml")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(settings.encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        FakeSession().console().close()
    assert kinds(noted()) == ["console.open", "console.close"]
    assert len({record.getMessage() for record in caplog.records}) == 1
    assert "settings.toml" in caplog.text


UNWRITABLE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.session.test_journal import FakeSession
for _ in range(3):
    FakeSession().console().close()
print("done")
"""


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "vmconnect").write_text("no directory")
    result = subprocess.run(
        [sys.executable, "-c", UNWRITABLE, Path(__file__).parents[2]],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "done\n"
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("vmconnect: cannot make the directory")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    script = f"mount -t tmpfs -o size=4k none {tmp_path} && mkdir -m 700 {tmp_path}/vmconnect && "
    script += f'head -c 1M /dev/zero >{tmp_path}/fill 2>/dev/null; exec "$@"'
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    result = subprocess.run(
        [*private, sys.executable, "-c", UNWRITABLE, str(Path(__file__).parents[2])],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "done\n"
    assert result.stderr.count("\n") == 1
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("vnc://ann:s3cret@host:5900", "vnc://ann@host:5900"),
        ("vnc://:s3cret@host", "vnc://@host"),
        ("ssh://ann:s3:cr/et@kvm7/web01", "ssh://ann:s3:cr/et@kvm7/web01"),
        ("libvirt://ann@kvm7/system/web01", "libvirt://ann@kvm7/system/web01"),
        ("vnc://host?VncPassword=s3cret&x=1", "vnc://host?VncPassword=…&x=1"),
        ("vnc://host?x=1&SSHPASSWORD=s3cret", "vnc://host?x=1&SSHPASSWORD=…"),
        ("wss://host/x?token=s3cret;y=2", "wss://host/x?token=…;y=2"),
        ("qemu:/run/a:b@c.qmp", "qemu:/run/a:b@c.qmp"),
        ("cannot reach ws://a:s3cret@h/ in time", "cannot reach ws://a@h/ in time"),
    ],
)
def test_addresses_lose_their_passwords(text: str, kept: str) -> None:
    assert without_secrets(text) == kept


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), {"argv": []}),
        (("mysql", "-ps3cret"), {"program": "mysql", "arguments": 1}),
        (("mysql -ps3cret",), {"program": "mysql", "arguments": 0}),
        (("",), {"program": "", "arguments": 0}),
        (("x" * 500,), {"program": "x" * 200, "arguments": 0}),
    ],
)
def test_of_a_command_only_the_program_is_noted(
    argv: tuple[str, ...], words: dict[str, Any]
) -> None:
    assert command_words(argv) == words


def test_the_decorator_keeps_what_the_methods_say_of_themselves() -> None:
    assert Session.console.__doc__ is not None
    assert "Attach to the machine's screen" in Session.console.__doc__
    assert isinstance(Guest.run.__doc__, str)
